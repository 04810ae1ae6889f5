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
    """Measure a model, or vectors that one made, on labelled images and on benchmarks.

    Example: openmofi evaluate run/model --data shop=photos/test.csv --kb kb --out scores

    What a dataset is measured by follows from its layout; docs/evaluate.md lists them. `openmofi
    evaluate linking | attack | oven` are verbs of their own; a folder of such a name is ./linking.

    Args:
        model: Hub id or directory of a dual encoder; leave it out with --embeddings.
        data: NAME=PATH: class folders (also below train/ and test/), a .csv with the columns file
            and label or caption, GPR1200, ROxford or RParis, a "wds" folder of CLIP_benchmark, or a
            folder of several, a dataset in Parquet, SCAM, RTA-100, or a demo world. Repeatable.
        embeddings: Vectors to measure in place of a model: a file of `openmofi embed`, repeatable,
            or one .npy in the data's order.
        kb: Knowledge base with the labels' names and descriptions.
        benchmarks: What labelled images are measured by: some of
            retrieval,knn,zero-shot,tagging,probe, typographic with commas, or all. The default is
            the first four; of these and of all, those that model and data allow.
        class_names: Name of a dataset of CLIP_benchmark, such as imagenet1k, whose class names and
            prompts to use, or a file with a name per line; the i-th is that of the i-th label in
            sorted order.
        out: Directory for scores.json, scores.csv, clip_benchmark/ and report.html.
        cache: Keep vectors by model and image in OPENMOFI_CACHE (by default ~/.cache/openmofi), so
            that the same images are not encoded again.
        device: auto, cpu, cuda or cuda:N.
        as_json: Print what scores.json holds.
    """
    from openmofi.evaluate import evaluate as run_evaluate
    from openmofi.evaluate.results import records
    from openmofi.files.folders import cache_folder

    scores = run_evaluate(
        model,
        data=_named_paths(data),
        embeddings=embeddings,
        out=out,
        kb=kb,
        benchmarks=None if benchmarks is None else _parts(benchmarks),
        class_names=class_names,
        cache=cache_folder() if cache else None,
        device=device,
    )
    if as_json:
        print_json(list(records(scores)))
        return
    _print_scores(scores)
    if out is not None:
        print(f"wrote {out}/scores.json, scores.csv, clip_benchmark/ and report.html")
    if model is not None:
        say_next(f"openmofi embed {quoted(model)} IMAGES --out embeddings.parquet")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


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
