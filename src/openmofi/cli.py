"""The command line: every verb parses, calls the function of its name, and says what it did."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from openmofi import __version__
from openmofi.config import IndexSettings, KBSettings, LabelSettings, SelectSettings
from openmofi.errors import OpenMOFIError

if TYPE_CHECKING:
    from openmofi.shards import RunTotals

app = App(
    name="openmofi",
    version=__version__,
    help=(
        "Turn noisy image-caption pairs into entity-labelled images, train encoders on them, and "
        "search with them. The verbs in order: kb build, link, label, select, inspect, train, "
        "embed, evaluate, index, search, tag. `openmofi demo` runs them all on a built-in world."
    ),
    help_format="plaintext",
)
kb_app = App(name="kb", help="Build a knowledge base, or look into one.")
app.command(kb_app)

Flags = Parameter(name="*")
_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a user's mistake is one sentence and exit code 1.

    With OPENMOFI_DEBUG=1 in the environment, the sentence is a traceback instead.

    Args:
        arguments: what was typed after `openmofi`; the default is the process's own.
    """
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        print("openmofi: interrupted; the same command continues where it can.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader went away, as `| head` does
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        known = isinstance(error, (OpenMOFIError, CycloptsError, OSError, MemoryError))
        if not (known or _is_arrow_error(error)) or os.environ.get("OPENMOFI_DEBUG") == "1":
            raise
        print(f"openmofi: {_sentence(error)}", file=sys.stderr)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    """Returns what went wrong, in one sentence."""
    if isinstance(error, CycloptsError):
        return f"{str(error).strip().rstrip('.')}; see `openmofi --help` or add --help to a verb."
    if isinstance(error, MemoryError):
        return "The memory is used up; try a smaller --batch-size, or fewer --workers."
    if _is_arrow_error(error):
        return f"A table is damaged: {str(error).strip().rstrip('.')}; make it again."
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error)
    place = f" ({str(error.filename)!r})" if error.filename is not None else ""
    return f"{reason}{place}; mend that and repeat the command."


def _is_arrow_error(error: Exception) -> bool:
    return type(error).__module__.startswith("pyarrow")


@kb_app.command(name="build")
def kb_build(
    sources: list[Path],
    /,
    *,
    out: Path,
    settings: Annotated[KBSettings, Flags] = KBSettings(),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Build a knowledge base from Wikidata dumps and catalogues.

    Example: openmofi kb build latest-all.json.gz products.csv --out kb

    Parameters
    ----------
    sources
        Dumps (.json, .json.gz, .json.bz2, .json.zst) and catalogues (.csv), in any mixture.
    out
        Directory to write; an existing knowledge base is replaced at the end.
    as_json
        Print the counts as JSON.
    """
    from openmofi.kb import build_kb

    summary = build_kb(sources, out=out, settings=settings)
    if as_json:
        _print_json(summary)
        return
    _say_wrote(out, summary.entities, summary.rejected, "entities")
    for source in summary.sources:
        if source.note:
            print(f"note: {source.path}: {source.note}")
    _say_next(f"openmofi kb query NAME --kb {out}")


@kb_app.command(name="query")
def kb_query(
    name: str,
    /,
    *,
    kb: Path = Path("kb"),
    limit: int = 10,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """List the entities that a name may stand for, most probable first.

    Example: openmofi kb query Belgium --kb kb-sample

    Parameters
    ----------
    name
        Any name or alias, in any case.
    kb
        Knowledge base directory.
    limit
        Largest number of entities.
    as_json
        Print JSON.
    """
    from openmofi.kb import KnowledgeBase

    found = KnowledgeBase.open(kb).query(name, limit=limit)
    if as_json:
        _print_json(found)
        return
    if not found:
        print(f"No entity of {kb} is called {name!r}.")
        return
    rows = [(c.id, c.label, f"{c.prior:.3f}", c.description) for c in found]
    _print_table(("id", "label", "prior", "description"), rows)
    _say_next(f"openmofi kb show {found[0].id} --kb {kb}")


@kb_app.command(name="show")
def kb_show(
    entity: str,
    /,
    *,
    kb: Path = Path("kb"),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Show everything that is known of an entity.

    Example: openmofi kb show Q31 --kb kb-sample

    Parameters
    ----------
    entity
        Id, such as Q31.
    kb
        Knowledge base directory.
    as_json
        Print JSON.
    """
    from openmofi.kb import KnowledgeBase

    view = KnowledgeBase.open(kb).show(entity)
    if as_json:
        _print_json(view)
        return
    _print_table(("", entity), [(k, _brief(v)) for k, v in asdict(view).items()])


@app.command
def link(
    text: str,
    /,
    *,
    kb: Path = Path("kb"),
    model: str | None = None,
    all_candidates: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Link the mentions of one caption to entities.

    Example: openmofi link "a flag of Georgia over Tbilisi" --kb kb

    Parameters
    ----------
    text
        The caption.
    kb
        Knowledge base directory.
    model
        Dual encoder whose text tower compares the caption with the candidates' descriptions; the
        default compares their words.
    all_candidates
        Show every candidate of a mention, not only the best.
    as_json
        Print JSON.
    """
    from openmofi.kb import KnowledgeBase
    from openmofi.link import Linker, WordEncoder

    knowledge = KnowledgeBase.open(kb)
    encoder = WordEncoder(knowledge)
    if model is not None:
        from openmofi.model import load_model

        encoder = load_model(model)
    table = Linker(knowledge, encoder=encoder).link([text], all_candidates=all_candidates)
    found = table.to_pylist()
    if as_json:
        _print_json(found)
        return
    if not found:
        print("No name of the knowledge base occurs in this caption.")
        return
    rows = []
    for row in found:
        entity = knowledge.show(row["id"])
        context = "" if row["context"] is None else f"{row['context']:.3f}"
        numbers = (f"{row['prior']:.3f}", context, f"{row['score']:.3f}")
        rows.append((row["surface"], row["id"], entity.label, *numbers, entity.description))
    heads = ("mention", "id", "label", "prior", "context", "score", "description")
    _print_table(heads, rows)


@app.command
def label(
    source: Path,
    /,
    *,
    kb: Path,
    model: str,
    out: Path,
    settings: Annotated[LabelSettings, Flags] = LabelSettings(),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Score the candidate entities of every image-caption pair against its picture.

    Example: openmofi label shards/ --kb kb --model openai/clip-vit-base-patch32 --out i2e

    Parameters
    ----------
    source
        Folder of .tar or .parquet shards, folder of images with captions, or a listing.
    kb
        Knowledge base directory.
    model
        Any Hugging Face dual encoder: a hub id or a local directory.
    out
        Directory to write; the same command again continues.
    as_json
        Print the counts as JSON.
    """
    from openmofi.label import label as run_label

    totals = run_label(source, kb=kb, model=model, out=out, settings=settings)
    if as_json:
        _print_json(totals)
    else:
        _say_labelled(out, totals)
    if totals.failed:
        raise OpenMOFIError(
            f"{totals.failed} of {totals.shards} shards failed; mend the cause, and the same "
            f"command tries them again ({out}/_done has the reasons)."
        )


@app.command
def select(
    i2e: Path,
    /,
    *,
    name: str = "default",
    settings: Annotated[SelectSettings, Flags] = SelectSettings(),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Decide which labels and images to keep; takes seconds and never touches the labels.

    Example: openmofi select i2e --name strict --false-label-rate 0.01 --min-images 10

    Parameters
    ----------
    i2e
        Output of `openmofi label`.
    name
        Name of this selection.
    as_json
        Print the counts as JSON.
    """
    from openmofi.select import select as run_select

    summary = run_select(i2e, name=name, settings=settings)
    if as_json:
        _print_json(summary)
        return
    _say_wrote(summary.out, summary.kept, summary.refused, "images")
    print(f"{summary.labels:,} labels of {summary.classes:,} entities")
    if summary.missing_shards:
        print(f"note: {summary.missing_shards:,} shards of the input have no labels (yet)")
    if summary.calibration:
        print(
            f"threshold {summary.threshold:.2f} on clip_z, estimated false-label rate "
            f"{summary.calibration.estimated_false_label_rate:.3f}"
        )
        if not summary.calibration.reached:
            print(
                "warning: no threshold reaches the false-label rate asked for; this is the best. "
                "Does the model know these pictures?"
            )
    _say_next(f"openmofi inspect {i2e} --name {name}")


@app.command
def inspect(
    i2e: Path, /, *, name: str = "default", out: Path | None = None, images: int = 60
) -> None:
    """Write one HTML page that shows what was kept, what was refused, and why.

    Example: openmofi inspect i2e --name strict --out look.html

    Parameters
    ----------
    i2e
        Output of `openmofi label`.
    name
        Name of the selection.
    out
        HTML file to write; the default lies beside the selection.
    images
        Pictures per section.
    """
    from openmofi.select.report import inspect as run_inspect

    page = run_inspect(i2e, name=name, out=out, images=images)
    print(f"wrote {page}")
    _say_next(f"openmofi train RECIPE --data {i2e}/select/{name} --out run")


@app.command
def train(
    recipe: Path,
    /,
    *,
    data: Path,
    out: Path,
    resume: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Train a model as a recipe says.

    Example: openmofi train recipes/multitask.yaml --data i2e/select/default --out run

    Parameters
    ----------
    recipe
        YAML file with what differs from the defaults.
    data
        Output of `openmofi select`, or raw pairs for a recipe that uses captions alone.
    out
        Directory to write.
    resume
        Go on from the newest checkpoint in --out.
    set_
        Override a setting, as in --set optim.learning_rate=1e-3; repeatable.
    as_json
        Print the summary as JSON.
    """
    from openmofi.config import parse_assignments
    from openmofi.train import train as run_train

    changes = parse_assignments(set_ or [])
    summary = run_train(recipe, data=data, out=out, resume=resume, changes=changes)
    if as_json:
        _print_json(summary)
        return
    if not summary.finished:
        print(f"stopped after step {summary.steps}; the same command with --resume goes on")
        return
    print(
        f"wrote {out}/model ({summary.steps:,} steps on {summary.images:,} images"
        f"{f' of {summary.classes:,} entities' if summary.classes else ''}, "
        f"loss {summary.loss:.3f}, {summary.seconds:,.0f} s)"
    )
    if summary.unreadable:
        print(f"{summary.unreadable} pictures could not be read; others stood in for them")
    _say_next(f"openmofi evaluate {out}/model --data NAME=PATH")


@app.command
def embed(
    model: str,
    path: Path,
    /,
    *,
    out: Path,
    device: str = "auto",
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Embed pictures into a Parquet file of unit vectors.

    Example: openmofi embed run/model photos/ --out photos.parquet

    Parameters
    ----------
    model
        Hub id or directory of a dual encoder.
    path
        Shards, a folder of images, a listing, or the output of `openmofi select`.
    out
        Parquet file to write.
    device
        auto, cpu, cuda or cuda:N.
    as_json
        Print the counts as JSON.
    """
    from openmofi.embed import embed as run_embed

    summary = run_embed(model, path, out=out, device=device)
    if as_json:
        _print_json(summary)
        return
    _say_wrote(out, summary.rows, summary.refused, "vectors")
    _say_next(f"openmofi index {out} --out index")


@app.command
def evaluate(
    model: str,
    /,
    *,
    data: list[str],
    kb: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Measure retrieval, kNN and zero-shot accuracy on labelled images.

    Example: openmofi evaluate run/model --data shop=photos/test.csv --kb kb --out scores

    Parameters
    ----------
    model
        Hub id or directory of a dual encoder.
    data
        NAME=PATH; a folder of class folders, a .csv with the columns file and label, or a demo
        world. Repeatable.
    kb
        Knowledge base with the labels' names and descriptions.
    out
        Directory for scores.json.
    device
        auto, cpu, cuda or cuda:N.
    as_json
        Print JSON in the form of CLIP_benchmark's result files.
    """
    from openmofi.evaluate import evaluate as run_evaluate
    from openmofi.evaluate.evaluate import records

    scores = run_evaluate(model, data=_named_paths(data), out=out, kb=kb, device=device)
    if as_json:
        _print_json(list(records(scores)))
        return
    names = list(dict.fromkeys(name for s in scores for name in s.metrics))
    rows = [
        (s.dataset, s.images, *(f"{s.metrics[n]:.3f}" if n in s.metrics else "-" for n in names))
        for s in scores
    ]
    _print_table(("dataset", "images", *names), rows)
    unreadable = sum(s.unreadable for s in scores)
    if unreadable:
        print(f"{unreadable} pictures could not be read and were left out")
    if out is not None:
        print(f"wrote {out}/scores.json")
    _say_next(f"openmofi embed {model} PICTURES --out embeddings.parquet")


@app.command
def index(
    source: Path,
    /,
    *,
    out: Path,
    settings: Annotated[IndexSettings, Flags] = IndexSettings(),
) -> None:
    """Build a vector index from embeddings.

    Example: openmofi index photos.parquet --out index

    Parameters
    ----------
    source
        Output of `openmofi embed`.
    out
        Directory to write; an existing index is replaced at the end.
    """
    from openmofi.search import Index

    built = Index.build(source, out, settings)
    print(f"wrote {out} ({len(built):,} vectors, {built.meta['kind']})")
    _say_next(f'openmofi search {out} --text "…"')


@app.command
def search(
    index: Path,
    /,
    *,
    text: str | None = None,
    image: Path | None = None,
    entity: str | None = None,
    k: int = 10,
    model: str | None = None,
    kb: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Search an index by text, by picture or by entity.

    Example: openmofi search index --image new.jpg --k 5

    Parameters
    ----------
    index
        Output of `openmofi index`.
    text
        What to look for, in words.
    image
        What to look for, as a picture.
    entity
        Only images of this entity; alone, its most typical images.
    k
        Number of results.
    model
        The encoder; the default is the one the index was made with.
    kb
        Knowledge base in which the entity's name is looked up.
    as_json
        Print JSON.
    """
    from openmofi.search import search as run_search

    hits = run_search(index, text=text, image=image, entity=entity, k=k, model=model, kb=kb)
    if as_json:
        _print_json(hits)
        return
    rows = [
        (
            f"{hit.score:.3f}",
            hit.id,
            hit.path or hit.shard,
            " ".join(hit.entities),
            _brief(hit.caption, 80),
        )
        for hit in hits
    ]
    _print_table(("score", "id", "where", "entities", "caption"), rows)


@app.command
def tag(
    model: str,
    images: list[Path],
    /,
    *,
    kb: Path,
    k: int = 5,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Name the entities that pictures show.

    Example: openmofi tag run/model new.jpg --kb kb

    Parameters
    ----------
    model
        Directory of a trained model, or any dual encoder.
    images
        Picture files.
    kb
        Knowledge base with the entities' names.
    k
        Entities per picture.
    as_json
        Print JSON.
    """
    from openmofi.search import Tagger

    tagger = Tagger(model, kb)
    tags, unreadable = tagger.tag_readable(images, k=k)
    if as_json:
        _print_json([{"image": str(image), "tags": found} for image, found in tags.items()])
    elif tags:
        rows = [
            (str(image), f"{t.score:.3f}", t.id, t.label, _brief(t.description, 80), t.evidence)
            for image, found in tags.items()
            for t in found
        ]
        _print_table(("image", "score", "id", "label", "description", "evidence"), rows)
    if unreadable:
        raise OpenMOFIError(" ".join(unreadable))


@app.command
def demo(
    *,
    out: Path = Path("demo"),
    size: Literal["small", "full"] = "full",
    seed: int = 1,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Draw a small world of flags and run every stage on it, with real measurements.

    Example: openmofi demo --out demo

    Parameters
    ----------
    out
        Directory to write; finished stages of an interrupted demo are kept.
    size
        full takes minutes and learns; small takes seconds and shows that everything runs.
    seed
        Of the world, the order of the data and the initial weights.
    as_json
        Print results.json.
    """
    from openmofi.demo.story import print_results, run_demo

    results = run_demo(out, size=size, seed=seed)
    if as_json:
        _print_json(results)
        return
    print_results(results, out)


@app.command
def info() -> None:
    """Print versions and what this machine offers.

    Example: openmofi info
    """
    import importlib.metadata as metadata
    import platform

    packages = ("torch", "transformers", "numpy", "pyarrow", "faiss-cpu", "scikit-learn")
    rows = [("openmofi", __version__), ("python", platform.python_version())]
    rows += [(name, metadata.version(name)) for name in packages]
    rows += [("processor", f"{os.cpu_count()} x {platform.machine()}")]
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows.append(("GPU", ", ".join(gpus) or "none"))
    _print_table(("", ""), rows)


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


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON knows neither NaN nor infinity
    return str(value) if isinstance(value, Path) else value


def _print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def _print_table(heads: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=any(heads))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    # In a pipe a row stays one line, whatever its length, for grep and cut.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def _brief(value: Any, most: int = 600) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= most else text[:most].rstrip() + " …"


def _say_wrote(out: Path, rows: int, dropped: dict[str, int], unit: str) -> None:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items())
    lost = f"; dropped {sum(dropped.values()):,}: {reasons}" if dropped else ""
    print(f"wrote {out} ({rows:,} {unit}{lost})")


def _say_labelled(out: Path, totals: RunTotals) -> None:
    from openmofi.shards import commits

    _say_wrote(out, totals.rows - sum(totals.errors.values()), totals.errors, "pairs")
    troubled = [commit for commit in commits(out) if commit.reason]
    for commit in troubled[:_SHOWN]:
        fate = "failed" if commit.status == "failed" else "ended early"
        print(f"shard {commit.shard} {fate}: {commit.reason}")
    if len(troubled) > _SHOWN:
        print(f"and {len(troubled) - _SHOWN:,} more shards; see {out}/_done")
    finished = totals.done + totals.partial + totals.failed
    if finished < totals.shards:
        print(f"{totals.shards - finished:,} of {totals.shards:,} shards are left to other ranks")
    if totals.done + totals.partial:
        _say_next(f"openmofi select {out}")


def _say_next(command: str) -> None:
    print(f"next: {command}")


if __name__ == "__main__":
    main()
