"""A selection + an encoder of images -> proposals of entities that the catalogue lacks.

Images are encoded by `embed`'s own job into OUT/vectors, shard by shard: the same call goes on
after a kill. What people decide about proposals lies beside them (decisions.py) and outlives a new
run.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import openmofi
from openmofi.config import MissingSettings
from openmofi.errors import SettingsError
from openmofi.files.folders import alone_in, check_replaceable, local_path, replace_file
from openmofi.progress import progress
from openmofi.review.missing.describe import describe, list_members
from openmofi.review.missing.evidence import evidence_of, images_to_see, possible_names
from openmofi.review.missing.images import known_images, listing_of, refused_images
from openmofi.review.missing.proposals import FILE, write_proposals
from openmofi.review.missing.propose import propose
from openmofi.review.missing.vectors import IMAGES, encode, take_given
from openmofi.select.selection import Selection


@dataclass(frozen=True)
class MissingSummary:
    """What was proposed."""

    out: Path
    proposals: int
    refused: int
    """Images that may show something unknown."""
    looked: int
    """Of them, those that were looked at."""
    dropped: dict[str, int]
    """Images without a vector, by reason."""
    phrases: int
    seconds: float


def missing_folder(i2e: Path, name: str) -> Path:
    """Returns where the proposals of a selection lie unless told otherwise; `serve` looks there."""
    return i2e / "missing" / name


def find_missing(
    i2e: Path | str,
    *,
    name: str = "default",
    model: str | Path | None = None,
    embeddings: Path | str | None = None,
    out: Path | str | None = None,
    settings: MissingSettings | None = None,
) -> MissingSummary:
    """Proposes entities for the catalogue.

    Args:
        i2e: output of `label`.
        name: the selection whose refused images are looked at.
        model: an encoder of images, its directory or hub id.
        embeddings: vectors of the images instead, as `embed` writes them of all images.
        out: folder to write; by default `missing_folder`. The same call goes on.
        settings: see `config.MissingSettings`.

    Raises:
        InputError: there is no such selection, or the vectors are of other images.
        SettingsError: not one of `model` and `embeddings` is given.
    """
    settings = settings or MissingSettings()
    if (model is None) == (embeddings is None):
        raise SettingsError("Give either --model or --embeddings: something has to see the images.")
    started, i2e = time.monotonic(), Path(i2e)
    selection = Selection(i2e, name)
    out = missing_folder(i2e, name) if out is None else local_path(out)
    check_replaceable(out, _is_ours, "an output of `review missing`")
    with alone_in(out):
        images = refused_images(selection)
        phrases, bearers = possible_names(selection, images, least=settings.min_images)
        chosen, bearers = images_to_see(bearers, len(images))
        table = listing_of(selection, images, chosen)
        findings, made, dropped = [], [], {}
        if len(phrases):
            known, entities = known_images(selection, len(chosen))
            both = pa.concat_tables([table, known])
            if model is not None:
                vectors, dropped = encode(selection, both, model, out, settings)
            else:
                assert embeddings is not None
                vectors, dropped = take_given(both, embeddings)
            evidence = evidence_of(selection.kb, phrases, bearers, vectors, entities)
            with progress("propose", total=len(phrases), unit="phrases") as bar:
                findings = propose(evidence, least=settings.min_images, advance=bar.advance)
            made = describe(selection, images, chosen, table, evidence, findings)
        write_proposals(out, made, list_members(selection, images, chosen, table, findings, made))
        summary = MissingSummary(
            out,
            len(made),
            images.all,
            len(chosen),
            dropped,
            len(phrases),
            round(time.monotonic() - started, 2),
        )
        card = {
            "openmofi": openmofi.__version__,
            "i2e": str(i2e.resolve()),
            "selection": name,
            "kb": selection.card["kb"],
            "model": model and str(model),
            "embeddings": embeddings and str(embeddings),
            "settings": vars(settings),
            "counts": {k: v for k, v in vars(summary).items() if k != "out"},
        }
        with replace_file(out / "card.json") as partial:
            partial.write_text(json.dumps(card, indent=1))
    return summary


def _is_ours(out: Path) -> bool:
    return any((out / name).exists() for name in (FILE, IMAGES, ".lock"))
