"""The verb `index`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openmofi.cli.app import Flags, Json, Out, index_app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.config import IndexSettings

if TYPE_CHECKING:
    from openmofi.search import Index


@index_app.default
def index(
    source: Path,
    /,
    *,
    out: Annotated[Path, Out],
    kb: Path | None = None,
    settings: Annotated[IndexSettings, Flags] = IndexSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Build a vector index from embeddings of any origin.

    Example: openmofi index photos.parquet --out index

    `openmofi index add | delete | compact | map | export` change or read an index; for a file with
    such a name, type ./add.

    Args:
        source: Output of `openmofi embed`, or vectors of other tools: Parquet or Feather with a
            column `vector` (and `id`), .npy, or a folder of clip-retrieval or autofaiss.
        out: Directory to write; an existing index is replaced at the end.
        kb: Knowledge base with the names and types of entities; the default is the one of the
            selection that was embedded.
        settings: One option per field.
        as_json: Print what was written as JSON.
    """
    from openmofi.search import Index

    built = Index.build(source, out, settings, kb=kb)
    if as_json:
        print_json(facts(built))
        return
    print(f"wrote {out} ({len(built):,} vectors, {built.meta['kind']})")
    say_next(f'openmofi search {quoted(out)} --text "…"')


def facts(index: Index) -> dict[str, Any]:
    """Returns the main facts about a written index."""
    kept = ("rows", "dim", "kind", "model")
    return {"out": index.folder, "vectors": len(index)} | {n: index.meta[n] for n in kept}
