"""A question in words, a picture or an entity -> hits."""

from __future__ import annotations

from pathlib import Path

from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase
from openmofi.model import MofiModel, load_model
from openmofi.pairs import PICTURE_ERRORS
from openmofi.search.index import Hit, Index


def search(
    index: Index | Path | str,
    *,
    text: str | None = None,
    image: Path | str | None = None,
    entity: str | None = None,
    k: int = 10,
    model: MofiModel | str | None = None,
    kb: Path | str | None = None,
) -> list[Hit]:
    """Searches by text, by picture, by entity, or by text or picture within one entity.

    Args:
        index: an index or its directory.
        text: what to look for.
        image: a picture of what to look for.
        entity: id, or with `kb` any name of it; alone it asks for the entity's typical images.
        k: how many hits.
        model: the encoder; the default is the one the index was made with.
        kb: knowledge base in which an entity's name is looked up.

    Raises:
        InputError: no question or two, an unknown entity, a picture that cannot be read.
    """
    if (text is not None and image is not None) or text is image is entity is None:
        raise InputError(
            "Ask for one of --text, --image and --entity; --entity may go with one of the others."
        )
    if k < 1:
        raise InputError(f"k, the number of hits, cannot be {k}; expected at least 1.")
    opened = index if isinstance(index, Index) else Index.open(index)
    wanted = None if entity is None else _resolve(opened, entity, kb)
    if text is None and image is None:
        assert wanted is not None
        return opened.search_entity(wanted, k=k)
    encoder = _encoder(opened, model)
    if encoder.dim != opened.meta["dim"]:
        raise InputError(
            f"The model gives vectors of {encoder.dim} numbers, the index holds "
            f"{opened.meta['dim']}; pass the model that made it with --model."
        )
    if text is not None:
        vector = encoder.encode_texts([text])[0]
    else:
        vector = _encode_picture(encoder, Path(str(image)))
    return opened.search(vector, k=k, entity=wanted)


def _encode_picture(encoder: MofiModel, path: Path):
    try:
        return encoder.encode_images([path])[0]
    except PICTURE_ERRORS as error:
        raise InputError(f"Cannot read the picture {str(path)!r}: {reason_of(error)}.") from None


def reason_of(error: BaseException) -> str:
    """Returns why a picture cannot be read, without the path that the message names anyway."""
    return getattr(error, "strerror", None) or str(error).split(" <")[0].rstrip(".")


def _resolve(index: Index, entity: str, kb: Path | str | None) -> str:
    """Returns the id that an id or a name stands for, among those the index holds."""
    if len(index.rows_of(entity)):
        return entity
    if kb is not None:
        for candidate in KnowledgeBase.open(Path(kb)).query(entity):
            if len(index.rows_of(candidate.id)):
                return candidate.id
    hint = "" if kb else " (pass --kb to look up names)"
    raise InputError(f"No image of the index is labelled {entity!r}{hint}.")


def _encoder(index: Index, model: MofiModel | str | None) -> MofiModel:
    if isinstance(model, MofiModel):
        return model
    source = model or index.meta.get("model")
    if not source:
        raise InputError("The index does not say which model made it; pass --model.")
    return load_model(source)
