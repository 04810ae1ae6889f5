"""The verb `link`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openmofi.cli.app import Flags, Json, app
from openmofi.cli.output import print_json, print_table, quoted, say_next
from openmofi.config import LinkSettings
from openmofi.errors import OpenMOFIError

if TYPE_CHECKING:
    from openmofi.kb import KnowledgeBase
    from openmofi.link import Linker

_COLOURS = ("green", "cyan", "magenta", "yellow", "blue")
_TERMS = (
    "kb_prior",
    "prior",
    "context",
    "coherence",
    "type",
    "linkability",
    "case",
    "detected",
    "fusion",
    "score",
)


@app.command
def link(
    text: str,
    /,
    *,
    kb: Path = Path("kb"),
    context: str = "words",
    fusion: Path | None = None,
    detector: str = "gazetteer",
    all_candidates: bool = False,
    settings: Annotated[LinkSettings, Flags] = LinkSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Link the mentions of one caption to entities, and show every term of the score.

    Example: openmofi link "a flag of Georgia over Tbilisi" --kb kb

    Args:
        text: The caption.
        kb: Knowledge base directory.
        context: What compares the caption with the candidates' descriptions: words (those they
            share), or a text encoder: the directory or hub id of one for sentence-transformers, of
            one of Hugging Face, or of a dual encoder.
        fusion: Folder of a reader of hard mentions, as `openmofi kb fit --fusion` writes it; it
            reads those of which the score is not sure.
        detector: Mention detector: gazetteer (only the names), spacy or spacy:PIPELINE, gliner or
            gliner:MODEL, or hf:MODEL, a token classifier.
        all_candidates: Show every candidate of a mention, not only the best.
        settings: One option per field.
        as_json: Print JSON.
    """
    from openmofi.kb import KnowledgeBase

    knowledge = KnowledgeBase.open(kb)
    finder = open_detector(detector)
    linker = open_linker(knowledge, context, fusion=fusion, detector=finder, settings=settings)
    found = linker.link([text], all_candidates=all_candidates).to_pylist()
    if as_json:
        print_json(found)
        return
    if not found:
        print("This caption probably does not name any entity of the knowledge base.")
        if not all_candidates:
            say_next(f"openmofi link {quoted(text)} --kb {quoted(kb)} --all-candidates")
        return
    _print_found(text, knowledge, found)
    if not all_candidates:
        say_next(f"openmofi link {quoted(text)} --kb {quoted(kb)} --all-candidates")


def _print_found(text: str, knowledge: KnowledgeBase, found: list[dict[str, Any]]) -> None:
    """Prints the caption with its mentions coloured, and a row per candidate.

    A term that was not computed has no column.
    """
    from rich.console import Console
    from rich.text import Text

    starts = list(dict.fromkeys(row["start"] for row in found))
    colours = {start: _COLOURS[i % len(_COLOURS)] for i, start in enumerate(starts)}
    caption = Text(text)
    for start, colour in colours.items():
        end = next(row["end"] for row in found if row["start"] == start)
        caption.stylize(f"bold underline {colour}", start, end)
    Console(soft_wrap=True).print(caption)

    shown = [name for name in _TERMS if any(row.get(name) is not None for row in found)]
    rows, styles, last = [], [], None
    texts = knowledge.texts
    for row, entity in zip(found, knowledge.rows_of([row["id"] for row in found]), strict=True):
        label, described = texts.label[entity].as_py(), texts.description[entity].as_py()
        numbers = ["" if row.get(name) is None else f"{row[name]:.3g}" for name in shown]
        surface = row["surface"] if row["start"] != last else ""
        rows.append((surface, row["id"], label, *numbers, described))
        styles.append(colours[row["start"]] if row["rank"] == 0 else "dim")
        last = row["start"]
    print_table(("mention", "id", "label", *shown, "description"), rows, styles)


def open_linker(
    knowledge: KnowledgeBase,
    context: str,
    *,
    fusion: Path | None = None,
    advance: Callable[[int], object] | None = None,
    **others: Any,
) -> Linker:
    """Returns a linker with the context that --context names and the reader of --fusion.

    Args:
        knowledge: the knowledge base, which keeps the vectors of its entities.
        context: words, or a text encoder.
        fusion: folder of a reader of hard mentions.
        advance: told the number of texts, whenever a text encoder encoded some.
        others: further arguments of `Linker`.
    """
    from openmofi.files.folders import cache_folder

    # Where the knowledge base cannot be written to.
    kept = cache_folder() / "kb" / knowledge.fingerprint
    if fusion is not None:
        from openmofi.label.fusion import open_fusion

        others["fusion"] = open_fusion(fusion, knowledge, kept, advance=advance)
    if context == "words":
        from openmofi.link import Linker, WordEncoder

        return Linker(knowledge, encoder=WordEncoder(knowledge), **others)
    from openmofi.label.encoder import model_digest
    from openmofi.label.entity_vectors import place
    from openmofi.label.text_context import text_linker
    from openmofi.model import load_text_encoder

    encoder = load_text_encoder(context, precision="auto")
    path = place(knowledge.path.resolve(), kept, f"{model_digest(context)}-auto")
    return text_linker(knowledge, encoder, path, advance=advance, **others)


def open_detector(name: str) -> Any:
    """Returns the detector that --detector names, or None for the gazetteer.

    Raises:
        OpenMOFIError: there is no such detector.
    """
    kind, _, model = name.partition(":")
    if name == "gazetteer":
        return None
    if kind == "spacy":
        from openmofi.link.detectors import SpacyDetector

        return SpacyDetector(model) if model else SpacyDetector()
    if kind == "gliner":
        from openmofi.link.detectors import GlinerDetector

        return GlinerDetector(model) if model else GlinerDetector()
    if kind == "hf" and model:
        from openmofi.model.mentions import TokenClassificationDetector

        return TokenClassificationDetector(model)
    raise OpenMOFIError(
        f"There is no detector {name!r}; expected gazetteer, spacy[:PIPELINE], gliner[:MODEL] or "
        "hf:MODEL, as in --detector hf:dslim/bert-base-NER."
    )
