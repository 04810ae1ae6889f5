"""The evaluation: a model, or its vectors, and benchmarks -> scores, files and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from openmofi.errors import InputError, SettingsError
from openmofi.evaluate.benchmarks import CHOICES, DEFAULTS
from openmofi.evaluate.layouts import open_all
from openmofi.evaluate.measure import Measured, check_possible, measure
from openmofi.evaluate.results import Scores, is_share, write_results
from openmofi.evaluate.subject import Wanted
from openmofi.evaluate.vectors import FileVectors, ModelVectors, Vectors
from openmofi.files.folders import local_path
from openmofi.kb import KnowledgeBase
from openmofi.model import MofiModel


def evaluate(
    model: str | Path | MofiModel | None = None,
    *,
    data: Mapping[str, Path | str],
    embeddings: Path | str | Sequence[Path | str] | None = None,
    out: Path | str | None = None,
    kb: Path | str | None = None,
    benchmarks: Sequence[str] | None = None,
    class_names: str | Path | None = None,
    cache: Path | str | None = None,
    device: str = "auto",
) -> list[Scores]:
    """Measures a model on each dataset with the benchmarks for its layout.

    Labelled images: retrieval mAP and top-1, kNN, zero-shot, tagging and, on request, a linear
    probe. GPR1200, ROxford / RParis, images with captions and typographic attacks have protocols of
    their own. A folder of several datasets also gets the mean of their scores.

    Args:
        model: a dual encoder, its directory or hub id; or pass `embeddings`.
        data: name -> path in one of the layouts of `evaluate.layouts`.
        embeddings: outputs of `openmofi embed`, or a .npy with one vector per image in the order of
            the data; zero-shot and tagging need texts and so a model.
        out: directory for scores.json, scores.csv, top1.json, report.html; None writes nothing.
        kb: knowledge base with the names and descriptions of the labels.
        benchmarks: for labelled images, some of `evaluate.benchmarks.CHOICES`, or ("all",); None
            runs its DEFAULTS. All and DEFAULTS skip what the model or the data do not allow.
        class_names: name of one of CLIP_benchmark's datasets, or a file with one name per line; the
            i-th name is that of the i-th label in sorted order.
        cache: folder that keeps vectors by model and image; None keeps none.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InputError: there is no data, its layout is unknown, or a benchmark cannot be run on it.
        SettingsError: model and embeddings are both given or both missing, or a benchmark is
            unknown.
    """
    if not data:
        raise InputError("Nothing to evaluate on; pass --data NAME=PATH.")
    wanted = _wanted(benchmarks, kb, class_names)
    if out is not None and local_path(out).exists() and not Path(out).is_dir():
        raise InputError(f"--out {str(out)!r} is a file; expected a folder.")
    opened = {name: open_all(name, path) for name, path in data.items()}
    for parts in opened.values():
        for part, dataset in parts.items():
            check_possible(part, dataset, wanted, reads_texts=embeddings is None)
    source = _open_source(model, embeddings, cache, device)
    if embeddings is None and not source.reads_texts:
        for parts in opened.values():
            for part, dataset in parts.items():
                check_possible(part, dataset, wanted, reads_texts=False, model=source.name)
    scores: list[Scores] = []
    sections: list[Measured] = []
    for name, parts in opened.items():
        measured = [measure(source, part, dataset, wanted) for part, dataset in parts.items()]
        scores += [m.scores for m in measured]
        if len(parts) > 1:
            scores.append(_mean(name, [m.scores for m in measured]))
        sections += measured
    if out is not None:
        from openmofi.evaluate.report import write_report

        write_results(Path(out), scores)
        write_report(Path(out), scores, sections)
    return scores


def _wanted(
    benchmarks: Sequence[str] | None, kb: Path | str | None, class_names: str | Path | None
) -> Wanted:
    chosen = DEFAULTS if benchmarks is None else tuple(benchmarks)
    chosen = CHOICES if chosen == ("all",) else chosen
    unknown = [name for name in chosen if name not in CHOICES]
    if unknown or not chosen:
        what = f"no benchmark {unknown[0]!r}" if unknown else "nothing to measure"
        raise SettingsError(f"There is {what}; expected some of {', '.join(CHOICES)}.")
    knowledge = KnowledgeBase.open(Path(kb)) if kb else None
    names = str(class_names) if class_names else None
    if_possible = chosen in (CHOICES, DEFAULTS)
    return Wanted(frozenset(chosen), knowledge, names, if_possible)


def _open_source(
    model: str | Path | MofiModel | None,
    embeddings: Path | str | Sequence[Path | str] | None,
    cache: Path | str | None,
    device: str,
) -> Vectors:
    if (model is None) == (embeddings is None):
        raise SettingsError(
            "Pass either a model or --embeddings FILE; vectors in a file are evaluated as they are."
        )
    if embeddings is not None:
        files = [embeddings] if isinstance(embeddings, (str, Path)) else embeddings
        return FileVectors(*files)
    assert model is not None
    return ModelVectors(model, device=device, cache=Path(cache) if cache else None)


def _mean(name: str, scores: Sequence[Scores]) -> Scores:
    """Returns the means of the scores that all datasets of a folder have."""
    shared = [m for m in scores[0].metrics if is_share(m) and all(m in s.metrics for s in scores)]
    return Scores(
        model=scores[0].model,
        dataset=name,
        images=sum(s.images for s in scores),
        classes=sum(s.classes for s in scores),
        unreadable=sum(s.unreadable for s in scores),
        metrics={m: sum(s.metrics[m] for s in scores) / len(scores) for m in shared},
        layout="mean",
        notes={"mean_of": [s.dataset for s in scores]},
        classes_learnt=scores[0].classes_learnt,
    )
