"""The verb `tag`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, Out, tag_app
from openmofi.cli.output import brief, print_json, print_table, say_wrote
from openmofi.errors import OpenMOFIError, SettingsError

if TYPE_CHECKING:
    from openmofi.tag.files import Tagged


@tag_app.default
def tag(
    model: str,
    images: list[Path],
    /,
    *,
    kb: Path,
    k: int = 5,
    index: Path | None = None,
    error_rate: float | None = None,
    unknown: float = 0.0,
    calibration: Path | None = None,
    out: Annotated[Path | None, Out] = None,
    xmp: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Name the entities that images show, with the evidence; abstain where unsure.

    Example: openmofi tag run/model photos --kb kb --error-rate 0.05 --out tags.csv

    Args:
        model: Directory of a trained model, or any dual encoder.
        images: Image files, or folders of them.
        kb: Knowledge base with the entities' names.
        k: Entities per image.
        index: Labelled images, the nearest of which are shown as evidence; for a model without
            class rows, also the entities to choose from.
        error_rate: Share of the answers that may be wrong; for less certain images it abstains.
            Needs `openmofi tag calibrate`.
        unknown: Your estimate of the share of images without an entity that the model knows.
        calibration: Output of `openmofi tag calibrate`; the default is in the model's directory.
        out: A .csv or .jsonl file; repeating the command continues it.
        xmp: Write the best entity of each image as a keyword into its sidecar IMAGE.EXT.xmp.
        as_json: Print JSON.
    """
    from openmofi.tag import Tagger, files
    from openmofi.tag.abstain import TagCalibration

    if sum((out is not None, xmp, as_json)) > 1:
        raise SettingsError("Choose one of --out, --xmp and --json.")
    paths = files.find_images(images)
    tagger = Tagger(model, kb, index=index)
    known = TagCalibration.read(calibration) if calibration else tagger.stored_calibration()
    ask = partial(tagger.answer, k=k, calibration=known, error_rate=error_rate, unknown=unknown)
    if out is not None:
        counts = files.write_tags(out, tagger, paths, ask)
        _say_tagged(out, counts, skipped=len(paths) - counts.total())
        return
    if xmp:
        _say_tagged(Path("IMAGE.EXT.xmp"), files.write_sidecars(tagger, paths, ask), skipped=0)
        return
    tagged = list(files.tag_all(tagger, paths, ask))
    read = [item for item in tagged if item.answer is not None]
    if as_json:
        print_json([files.plain(item) for item in read])
    elif read:
        print_table(
            ("image", "score", "sure", "id", "label", "description", "text", "nearest"),
            [row for item in read for row in _rows(item)],
        )
    failed = [item for item in tagged if item.error]
    if failed:
        raise OpenMOFIError(
            " ".join(f"Cannot read the image {str(t.image)!r}: {t.error}." for t in failed)
        )


def _say_tagged(out: Path, counts: Counter[str], *, skipped: int) -> None:
    dropped = {outcome: count for outcome, count in counts.items() if outcome != "tagged"}
    say_wrote(out, counts["tagged"], dropped, "images tagged")
    if skipped:
        print(f"{skipped:,} images were tagged before")


def _rows(item: Tagged) -> list[tuple[str, ...]]:
    assert item.answer is not None
    if item.answer.abstains:
        return [(str(item.image), "", "", "-", "nothing: " + item.answer.reason, "", "", "")]
    return [
        (
            str(item.image),
            f"{tag.score:.3f}",
            "" if tag.probability is None else f"{tag.probability:.0%}",
            tag.id,
            tag.label,
            brief(tag.description, 60),
            "" if tag.evidence.text_score is None else f"{tag.evidence.text_score:.3f}",
            " ".join(f"{hit.id}:{hit.score:.2f}" for hit in tag.evidence.nearest),
        )
        for tag in item.answer.tags
    ]
