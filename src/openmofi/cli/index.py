"""The verb `index`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openmofi.cli.app import Flags, Json, Out, index_app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.config import IndexSettings

if TYPE_CHECKING:
    from openmofi.search import Index


@index_app.default
def index(
    source: Path,
    /,
    *,
    out: Annotated[Path, Out],
    kb: Path | None = None,
    settings: Annotated[IndexSettings, Flags] = IndexSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Build a vector index from embeddings, whoever made them.

    Example: openmofi index photos.parquet --out index

    `openmofi index add | delete | compact | map | export` change an index or read it; a file of
    such a name is ./add.

    Args:
        source: Output of `openmofi embed`, or vectors of another maker: Parquet or Feather with a
            column `vector` (and `id`), .npy, or the folder of clip-retrieval or autofaiss.
        out: Directory to write; an existing index is replaced at the end.
        kb: Knowledge base with the names and types of entities; the default is the one of the
            selection that was embedded.
        settings: One option per field.
        as_json: Print what was written as JSON.
    """
    from openmofi.search import Index

    built = Index.build(source, out, settings, kb=kb)
    if as_json:
        print_json(facts(built))
        return
    print(f"wrote {out} ({len(built):,} vectors, {built.meta['kind']})")
    say_next(f'openmofi search {quoted(out)} --text "…"')


def facts(index: Index) -> dict[str, Any]:
    """Returns what is to be known of an index that was written."""
    kept = ("rows", "dim", "kind", "model")
    return {"out": index.folder, "vectors": len(index)} | {n: index.meta[n] for n in kept}
