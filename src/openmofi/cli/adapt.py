"""The verb `adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next


@app.command
def adapt(
    *,
    embeddings: Path,
    labels: Path | None = None,
    out: Annotated[Path, Out],
    model: str | None = None,
    texts: Path | None = None,
    kb: Path | None = None,
    write_embeddings: bool = False,
    device: str = "auto",
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Fit an encoder to your labels on its cached vectors, in minutes and without a GPU.

    Example: openmofi adapt --embeddings photos.parquet --labels labels.csv --out run

    Args:
        embeddings: Output of `openmofi embed`, or an .npy of vectors.
        labels: CSV or Parquet with the id or path of an image and its label; for an .npy, a label
            per line. Not needed if the file of vectors names entities.
        out: Directory to write.
        model: Encoder of the vectors; by default the one that their file names.
        texts: CSV with id, name and description of the entities, to learn from as well.
        kb: Knowledge base with the same.
        write_embeddings: Also write the adapted vectors of the whole file.
        device: auto, cpu, cuda or cuda:N, for the encoder.
        set_: Override a setting, as in --set pull=3; repeatable.
        as_json: Print the summary as JSON.
    """
    from openmofi.config import parse_assignments
    from openmofi.train.adapt import adapt as run_adapt

    summary = run_adapt(
        embeddings,
        labels=labels,
        out=out,
        model=model,
        texts=texts,
        kb=kb,
        changes=parse_assignments(set_ or []),
        write_embeddings=write_embeddings,
        device=device,
    )
    if as_json:
        print_json(summary)
        return
    for part, before in summary.before.items():
        print(f"held-out mAP, {part}: {before:.4f} -> {summary.after[part]:.4f}")
    lost = ", ".join(f"{reason} {count:,}" for reason, count in summary.dropped.items())
    print(
        f"wrote {out} ({summary.vectors:,} vectors of {summary.entities:,} entities"
        f"{f'; dropped: {lost}' if lost else ''})"
    )
    if summary.note:
        print(summary.note)
    if summary.model is not None:
        say_next(f"openmofi embed {quoted(summary.model)} IMAGES --out embeddings.parquet")
    elif write_embeddings and embeddings.suffix != ".npy":
        say_next(f"openmofi index {quoted(out / 'embeddings.parquet')} --out index")
