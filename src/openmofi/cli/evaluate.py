"""The verb `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, Out, evaluate_app
from openmofi.cli.output import print_json, print_table, quoted, say_next
from openmofi.errors import OpenMOFIError

if TYPE_CHECKING:
    from openmofi.evaluate.results import Scores


@evaluate_app.default
def evaluate(
    model: str | None = None,
    /,
    *,
    data: list[str],
    embeddings: list[Path] | None = None,
    kb: Path | None = None,
    benchmarks: str | None = None,
    class_names: str | None = None,
    out: Annotated[Path | None, Out] = None,
    cache: Annotated[bool, Parameter(negative="--no-cache")] = True,
    device: str = "auto",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Measure a model, or its stored vectors, on labelled images and benchmarks.

    Example: openmofi evaluate run/model --data shop=photos/test.csv --kb kb --out scores

    The layout of a dataset determines its measures; docs/evaluate.md lists them. `openmofi evaluate
    linking | attack | oven | compare` are separate verbs; for a folder with such a name, type
    ./linking.

    Args:
        model: Hub id or directory of a dual encoder; leave it out with --embeddings.
        data: NAME=PATH: class folders (also below train/ and test/), a .csv with the columns file
            and label or caption, GPR1200, ROxford or RParis, a "wds" folder of CLIP_benchmark, or a
            folder of several, a dataset in Parquet, SCAM, RTA-100, or a demo world. Repeatable.
        embeddings: Vectors to measure instead of a model: an output of `openmofi embed`,
            repeatable, or one .npy in the data's order.
        kb: Knowledge base with the labels' names and descriptions.
        benchmarks: Measures for labelled images: some of retrieval,knn,zero-shot,tagging,probe,
            typographic with commas, or all. The default is the first four. Of the default and of
            all, only those are run that model and data allow.
        class_names: Dataset of CLIP_benchmark, such as imagenet1k, whose class names and prompts to
            use, or a file with one name per line, in the sorted order of the labels.
        out: Directory for scores.json, scores.csv, top1.json, clip_benchmark/ and report.html.
        cache: Keep vectors by model and image in OPENMOFI_CACHE (by default ~/.cache/openmofi), so
            that the same images are not encoded again.
        device: auto, cpu, cuda or cuda:N.
        as_json: Print the contents of scores.json.
    """
    from openmofi.evaluate import evaluate as run_evaluate
    from openmofi.evaluate.results import records
    from openmofi.files.folders import cache_folder

    names = None
    if benchmarks is not None:
        names = [part.strip() for part in benchmarks.split(",") if part.strip()]
    scores = run_evaluate(
        model,
        data=_named_paths(data),
        embeddings=embeddings,
        out=out,
        kb=kb,
        benchmarks=names,
        class_names=class_names,
        cache=cache_folder() if cache else None,
        device=device,
    )
    if as_json:
        print_json(list(records(scores)))
        return
    _print_scores(scores)
    if out is not None:
        print(f"wrote {out}/scores.json, scores.csv, top1.json, clip_benchmark/ and report.html")
    if model is not None:
        say_next(f"openmofi embed {quoted(model)} IMAGES --out embeddings.parquet")


def _print_scores(scores: Sequence[Scores]) -> None:
    """Prints a row per score and a column per dataset, and what was left out."""
    names = list(dict.fromkeys(name for s in scores for name in s.metrics))
    rows = [("images", *(f"{s.images:,}" for s in scores))]
    for name in names:
        cells = (f"{s.metrics[name]:.4g}" if name in s.metrics else "-" for s in scores)
        rows.append((name, *cells))
    print_table(("", *(s.dataset for s in scores)), rows)
    for s in scores:
        refused = s.notes.get("refused", {})
        if refused:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in refused.items())
            print(f"{s.dataset}: left out {s.unreadable:,} images: {reasons}")
        if "gallery_refused" in s.notes:
            lost = sum(s.notes["gallery_refused"].values())
            print(f"{s.dataset}: left out {lost:,} training images")
        if "labels_not_in_kb" in s.notes:
            count = s.notes["labels_not_in_kb"]
            print(f"{s.dataset}: {count:,} labels are not in the knowledge base; see the notes")


def _named_paths(arguments: list[str]) -> dict[str, Path]:
    named = {}
    for argument in arguments:
        name, _, path = argument.partition("=")
        if not name or not path:
            raise OpenMOFIError(f"--data expects NAME=PATH, as in shop=photos; got {argument!r}.")
        if name in named:
            raise OpenMOFIError(f"--data names {name!r} twice; give each its own name.")
        named[name] = Path(path)
    return named
