"""Opens a reader of hard mentions for a knowledge base, whose entities' vectors it keeps.

In: a folder of `train.fusion`. Out: a `link.fusion.FusionReader`. The vectors of entities lie
beside those that `label` compares images with, and are encoded when their entity is first read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openmofi.kb import KnowledgeBase
from openmofi.label.encoder import model_digest
from openmofi.label.entity_vectors import EntityVectors, place
from openmofi.link.fusion import FusionReader
from openmofi.link.weights import check_scale

ENTITIES = "entities"
"""Folder of a pointer with the encoder of its candidates; see model/pointer.py."""
_PRECISION = "fp32"
"""In which entities are encoded."""


def check_fusion(folder: Path, *, standardised: bool) -> None:
    """Refuses a folder that does not hold a reader of this version, or one for another context.

    Args:
        folder: of the reader.
        standardised: whether a text encoder is the context, and not words.

    Raises:
        InputError: it does not, or is.
    """
    from openmofi.model import fusion_decoder, pointer
    from openmofi.model.fusion_files import kind_of, read_card

    module = fusion_decoder if kind_of(folder) == fusion_decoder.KIND else pointer
    _, weights = read_card(folder, module.KIND, module.VERSION)
    check_scale(weights, standardised)


def open_fusion(
    folder: Path,
    kb: KnowledgeBase,
    out: Path,
    *,
    device: str = "auto",
    advance: Callable[[int], object] | None = None,
) -> FusionReader:
    """Returns a trained reader.

    Args:
        folder: output of `train.fusion.fit_fusion`.
        kb: the knowledge base, which need not be that of the training.
        out: where the vectors of its entities go if it cannot be written to.
        device: auto, cpu, cuda or cuda:N.
        advance: told the number of texts, whenever entities were encoded.

    Raises:
        InputError: the folder does not hold a reader of this version.
    """
    from openmofi.model.fusion_decoder import KIND, DecoderReader, load_decoder
    from openmofi.model.fusion_files import kind_of
    from openmofi.model.pointer import PointerReader, load_pointer

    if kind_of(folder) == KIND:
        decoder, weights, scale = load_decoder(folder, device=device)
        return DecoderReader(decoder, kb, weights, scale)
    trained = load_pointer(folder, device=device)
    key = f"{model_digest(str(folder / ENTITIES))}-{_PRECISION}-types"
    path = place(kb.path.resolve(), out, key)
    encoder, texts = trained.entities, kb.text_with_types
    vectors = EntityVectors(kb, encoder, path, texts=texts, advance=advance)
    return PointerReader(trained, vectors)
