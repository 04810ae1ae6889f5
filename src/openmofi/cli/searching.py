"""The verbs of search: index, index add | delete | compact | map | export, and search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from openmofi.cli.app import Flags, Json, Out, app, index_app
from openmofi.cli.output import brief, print_json, print_table, quoted, say_next
from openmofi.config import IndexSettings
from openmofi.errors import InputError, SettingsError

if TYPE_CHECKING:
    import numpy as np

    from openmofi.search import Index, Term

_SHOWN = 10
_KINDS: dict[str, Literal["text", "image", "entity"]] = {
    "text": "text",
    "image": "image",
    "like": "entity",
}
_AWAY = 0.5
"""Weight of what is searched away from: with 1, what is opposite to it beats what was asked for."""


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

    Parameters
    ----------
    source
        Output of `openmofi embed`, or vectors of another maker: Parquet or Feather with a column
        `vector` (and `id`), .npy, or the folder of clip-retrieval or autofaiss.
    out
        Directory to write; an existing index is replaced at the end.
    kb
        Knowledge base with the names and types of entities; the default is the one of the
        selection that was embedded.
    as_json
        Print what was written as JSON.
    """
    from openmofi.search import Index

    built = Index.build(source, out, settings, kb=kb)
    if as_json:
        print_json(_facts(built))
        return
    print(f"wrote {out} ({len(built):,} vectors, {built.meta['kind']})")
    say_next(f'openmofi search {quoted(out)} --text "…"')


@index_app.command
def add(index: Path, source: Path, /, *, as_json: Annotated[bool, Json] = False) -> None:
    """Add embeddings to an index; it is not built anew.

    Example: openmofi index add index more.parquet

    Pictures that lie where one of the index does replace it.

    Parameters
    ----------
    index
        Output of `openmofi index`.
    source
        As for `openmofi index`, by the same model.
    as_json
        Print what was written as JSON.
    """
    from openmofi.search import Index

    before = Index.open(index)
    after = before.add(source)
    if as_json:
        print_json(_facts(after))
        return
    print(f"wrote {index} ({len(after):,} vectors, {len(before):,} before)")
    if after.meta["map"]:
        say_next(f"openmofi index map {quoted(index)}")


@index_app.command
def delete(
    index: Path,
    /,
    *,
    id: list[str] | None = None,
    row: list[int] | None = None,
    entity: list[str] | None = None,
    source: list[str] | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Delete pictures from an index; it is not built anew.

    Example: openmofi index delete index --id 000000499

    Parameters
    ----------
    index
        Output of `openmofi index`.
    id
        Ids of pictures, as `openmofi search` prints them. Repeatable. An id that several pictures
        share is refused, with their rows.
    row
        Rows of pictures, as `openmofi search --json` prints them. Repeatable.
    entity
        Ids or names of entities: all their pictures. Repeatable.
    source
        Hosts or shards: all their pictures. Repeatable.
    as_json
        Print what was written as JSON.
    """
    import numpy as np

    from openmofi.search import Filter, Index, Searcher

    if not (id or row or entity or source):
        raise SettingsError("Say what to delete: --id, --row, --entity or --source.")
    opened = Index.open(index)
    named = tuple(map(Searcher(opened).entity, entity or ()))
    wanted = np.zeros(opened.num_rows, bool)
    for number in row or ():
        if not 0 <= number < opened.num_rows:
            raise InputError(f"{str(index)!r} has no row {number}.")
        wanted[number] = True
    for identifier in id or ():
        wanted[_only_row(opened, identifier)] = True
    for given in (Filter(entities=named), Filter(sources=tuple(source or ()))):
        if given:
            wanted |= opened.passing(given)
    rows = np.flatnonzero(wanted & opened.live)
    if not len(rows):
        raise InputError(f"{str(index)!r} has no such picture.")
    after = opened.delete(rows)
    if as_json:
        print_json(_facts(after) | {"deleted": len(rows)})
        return
    print(f"wrote {index} ({len(after):,} vectors, {len(rows):,} deleted)")
    if len(after) < 0.7 * after.num_rows:
        say_next(f"openmofi index compact {quoted(index)}")


def _facts(index: Index) -> dict[str, Any]:
    """Returns what is to be known of an index that was written."""
    kept = ("rows", "dim", "kind", "model")
    return {"out": index.folder, "vectors": len(index)} | {n: index.meta[n] for n in kept}


def _only_row(index: Index, identifier: str) -> np.ndarray:
    """Returns the row of an id, if there is one.

    Raises:
        InputError: several pictures have it.
    """
    rows = index.rows_with_id(identifier)
    if len(rows) > 1:
        hits = index.hits(rows[:_SHOWN])
        places = [f"row {h.row} ({index.root_of(h.row)} {h.path or h.shard})" for h in hits]
        raise InputError(
            f"{len(rows):,} pictures have the id {identifier!r}: {', '.join(places)}"
            f"{', …' if len(rows) > _SHOWN else ''}; give --row in place of --id."
        )
    return rows


@index_app.command
def compact(index: Path, /, *, as_json: Annotated[bool, Json] = False) -> None:
    """Write an index anew, without what was deleted; rows are numbered anew.

    Example: openmofi index compact index

    Parameters
    ----------
    index
        Output of `openmofi index`.
    as_json
        Print what was written as JSON.
    """
    from openmofi.search import Index

    after = Index.open(index).compact()
    if as_json:
        print_json(_facts(after))
        return
    print(f"wrote {index} ({len(after):,} vectors, {after.meta['kind']})")


@index_app.command(name="map")
def map_index(
    index: Path,
    /,
    *,
    seed: int = 0,
    threads: int = 2,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Lay all pictures of an index out on a map, near ones side by side (t-SNE).

    Example: openmofi index map index

    Parameters
    ----------
    index
        Output of `openmofi index`.
    seed
        Of the layout.
    threads
        How many to use.
    as_json
        Print what was written as JSON.
    """
    from openmofi.search import Index
    from openmofi.search.layout import make_map

    after = make_map(Index.open(index), seed=seed, threads=threads)
    if as_json:
        print_json(_facts(after) | {"map": str(index / after.meta["map"])})
        return
    print(f"wrote {index}/{after.meta['map']} ({len(after):,} points)")
    say_next(f"openmofi serve {quoted(index)}")


@index_app.command
def export(
    index: Path,
    /,
    *,
    to: Literal["parquet", "lance", "qdrant"],
    out: str,
    name: str = "openmofi",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write the vectors, labels and captions of an index for other systems.

    Example: openmofi index export index --to lance --out pictures.lance

    Parameters
    ----------
    index
        Output of `openmofi index`.
    to
        parquet: one file. lance: a LanceDB directory. qdrant: a directory, or a server.
    out
        The file, the directory, or http://SERVER:6333.
    name
        Of the table or collection.
    as_json
        Print what was written as JSON.
    """
    from openmofi.search import Index
    from openmofi.search.exports import export_index

    rows = export_index(Index.open(index), out, to=to, name=name)
    if as_json:
        print_json({"out": out, "vectors": rows})
        return
    print(f"wrote {out} ({rows:,} vectors)")


@app.command
def search(
    index: Path,
    /,
    *,
    text: list[str] | None = None,
    image: list[str] | None = None,
    like: list[str] | None = None,
    not_text: list[str] | None = None,
    not_image: list[str] | None = None,
    not_like: list[str] | None = None,
    entity: list[str] | None = None,
    not_entity: list[str] | None = None,
    type: list[str] | None = None,
    source: list[str] | None = None,
    min_score: float | None = None,
    min_label_score: float | None = None,
    max_text_area: float | None = None,
    k: int = 10,
    model: str | None = None,
    kb: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Search an index by text, picture or entity, or by a mix of them.

    Example: openmofi search index --image new.jpg --text "at night^0.5" --entity "Royal Gala"

    What is looked for is summed, each with the weight behind its last ^ (by default 1, and 0.5
    for --not-…). Without any, --entity finds its most typical images.

    Parameters
    ----------
    index
        Output of `openmofi index`.
    text
        What to look for, in words. Repeatable, as all that follow.
    image
        What to look for, as a picture.
    like
        What to look for: an entity, by id or name.
    not_text
        What to look away from.
    not_image
        What to look away from.
    not_like
        What to look away from.
    entity
        Only images labelled with this entity, by id or name, or with another one that is given.
    not_entity
        No images of this entity.
    type
        Only images of entities of this type, by id or name.
    source
        Only images of this host, or of this shard where there is no address.
    min_score
        Least cosine with what is looked for.
    min_label_score
        Least score of a label that counts.
    max_text_area
        Largest share of the picture covered by text.
    k
        Number of results.
    model
        The encoder; the default is the one the index was made with.
    kb
        Knowledge base in which names are looked up; the default is the index's.
    as_json
        Print JSON.
    """
    from openmofi.search import Filter, Searcher

    searcher = Searcher(index, model=model, kb=kb)
    terms = _terms({"text": text, "image": image, "like": like}, 1.0, 1)
    terms += _terms({"text": not_text, "image": not_image, "like": not_like}, _AWAY, -1)
    wanted = Filter(
        entities=tuple(map(searcher.entity, entity or ())),
        not_entities=tuple(map(searcher.entity, not_entity or ())),
        types=tuple(map(searcher.type, type or ())),
        sources=tuple(source or ()),
        min_label_score=min_label_score,
        max_text_area=max_text_area,
    )
    found = searcher.ask(terms, filter=wanted, k=k, min_score=min_score)
    if as_json:
        print_json(found.hits)
        return
    rows = [
        (
            "" if hit.score is None else f"{hit.score:.3f}",
            hit.id,
            hit.path or hit.shard,
            " ".join(hit.entities),
            brief(hit.caption, 80),
        )
        for hit in found.hits
    ]
    print_table(("score", "id", "where", "entities", "caption"), rows)


def _terms(given: dict[str, list[str] | None], weight: float, sign: int) -> list[Term]:
    """Returns the terms of some flags."""
    from openmofi.search import Term

    found = []
    for flag, values in given.items():
        for written in values or ():
            value, own = _weighted(written, weight)
            found.append(Term(_KINDS[flag], Path(value) if flag == "image" else value, sign * own))
    return found


def _weighted(written: str, weight: float) -> tuple[str, float]:
    """Splits "red apple^0.5" into value and weight; a ^ before anything else belongs to the value.

    Raises:
        SettingsError: the weight is not above zero.
    """
    value, mark, number = written.rpartition("^")
    try:
        own = float(number) if mark else weight
    except ValueError:
        return written, weight
    value = value if mark else written
    if not 0 < own <= 1000:
        raise SettingsError(
            f"A weight cannot be {number}; expected more than 0 and at most 1000, as in ^0.5."
        )
    if not value.strip():
        raise SettingsError(f"There is nothing to look for in {written!r}.")
    return value, own
