"""The verb `review answer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from openmofi.cli.app import Json, review_app
from openmofi.cli.output import print_json, quoted, say_next


@review_app.command
def answer(
    kind: Literal["right", "wrong", "is", "not-shown", "never", "always"],
    i2e: Path,
    /,
    *,
    called: str,
    entity: str = "",
    key: str = "",
    shard: str = "",
    by: str = "",
    note: str = "",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Correct a label: the answer is kept beside the labels until it is undone.

    right: the image shows that entity; wrong: it does not; is: it shows another one, --entity;
    not-shown: it shows nothing that the name means; never, always: about the name wherever it
    stands, not about one image.

    Example: openmofi review answer is i2e --key 000000017 --called Georgia --entity Q230

    Args:
        kind: What is said.
        i2e: Output of `openmofi label`.
        called: The name, as it stands in the caption.
        entity: Id of the entity.
        key: Key of the pair; not for never and always.
        shard: The pair's shard, if several have this key.
        by: Who says so.
        note: Anything to remember with it.
        as_json: Print the answer as JSON.
    """
    from openmofi.review.give import give_answer

    found = give_answer(
        i2e, kind, name=called, entity=entity, key=key, shard=shard, by=by, note=note
    )
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(found))
        return
    print(f"noted {found.id}")
    say_next(f"openmofi review preview {quoted(i2e)}")
