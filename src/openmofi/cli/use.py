"""The verbs that use what was made: index, search, tag; and demo, info."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from openmofi import __version__
from openmofi.cli.app import Flags, Json, app
from openmofi.cli.output import brief, print_json, print_table, say_next
from openmofi.config import IndexSettings
from openmofi.errors import OpenMOFIError


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
    say_next(f'openmofi search {out} --text "…"')


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
    as_json: Annotated[bool, Json] = False,
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
        print_json(hits)
        return
    rows = [
        (
            f"{hit.score:.3f}",
            hit.id,
            hit.path or hit.shard,
            " ".join(hit.entities),
            brief(hit.caption, 80),
        )
        for hit in hits
    ]
    print_table(("score", "id", "where", "entities", "caption"), rows)


@app.command
def tag(
    model: str,
    images: list[Path],
    /,
    *,
    kb: Path,
    k: int = 5,
    as_json: Annotated[bool, Json] = False,
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
        print_json([{"image": str(image), "tags": found} for image, found in tags.items()])
    elif tags:
        rows = [
            (str(image), f"{t.score:.3f}", t.id, t.label, brief(t.description, 80), t.evidence)
            for image, found in tags.items()
            for t in found
        ]
        print_table(("image", "score", "id", "label", "description", "evidence"), rows)
    if unreadable:
        raise OpenMOFIError(" ".join(unreadable))


@app.command
def demo(
    *,
    out: Path = Path("demo"),
    size: Literal["small", "full"] = "full",
    seed: int = 1,
    as_json: Annotated[bool, Json] = False,
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
        print_json(results)
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
    print_table(("", ""), rows)
