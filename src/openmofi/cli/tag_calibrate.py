"""The verb `tag calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, Out, tag_app
from openmofi.cli.output import print_json, print_table, quoted, say_next
from openmofi.errors import InputError

if TYPE_CHECKING:
    pass


@tag_app.command
def calibrate(
    model: str,
    /,
    *,
    data: Path,
    kb: Path,
    index: Path | None = None,
    out: Annotated[Path | None, Out] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Learn from labelled images how certain a model must be for any error rate.

    Example: openmofi tag calibrate run/model --data photos/held_out.csv --kb kb

    Args:
        model: Directory of a trained model, or any dual encoder.
        data: Images that the model was not trained on, with entity ids as labels, in any layout
            that `openmofi evaluate` knows.
        kb: Knowledge base with the entities' names.
        index: Index with the entities to choose from, for a model without class rows.
        out: File to write; the default is tag_calibration.parquet in the model's directory.
        as_json: Print JSON.
    """
    from openmofi.schema import TAG_CALIBRATION
    from openmofi.tag import Tagger
    from openmofi.tag.calibrate import calibrate as run_calibrate

    if out is None and not Path(model).is_dir():
        raise InputError(f"The model {model!r} is not a directory; say where to write with --out.")
    tagger = Tagger(model, kb, index=index)
    found = run_calibrate(tagger, data)
    place = Path(model) / TAG_CALIBRATION if out is None else out
    found.write(place)
    rows = []
    for rate in (0.01, 0.02, 0.05, 0.1, 0.2):
        least = found.threshold(rate)
        rows.append({"error_rate": rate, "least_score": least})
        rows[-1] |= {"answered": float((found.score >= least).mean())}
    if as_json:
        print_json({"pictures": len(found.score), "right": float(found.right.mean()), "at": rows})
        return
    print_table(
        ("error rate", "least score", "answered"),
        [(f"{r['error_rate']:g}", f"{r['least_score']:.3f}", f"{r['answered']:.1%}") for r in rows],
    )
    print(f"wrote {place} ({len(found.score):,} images, {found.right.mean():.1%} right)")
    say_next(f"openmofi tag {quoted(model)} IMAGES --kb {quoted(kb)} --error-rate 0.05")
