"""A selection + an encoder of images -> proposals of entities that the catalogue lacks.

Images are encoded by `embed`'s own job into OUT/vectors, shard by shard: the same call goes on after a
kill. What people decide about proposals lies beside them (decisions.py) and outlives a new run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import openmofi
from openmofi.config import EmbedSettings, MissingSettings
from openmofi.corrections.keys import find, text_keys
from openmofi.embed import embed
from openmofi.embeddings import Embeddings, embedding_batches
from openmofi.errors import InputError, SettingsError
from openmofi.files.folders import alone_in, check_replaceable, local_path, new_folder, replace_file
from openmofi.kb import KnowledgeBase
from openmofi.link.stopwords import stop_words
from openmofi.progress import progress
from openmofi.review.missing.images import (
    RefusedImages,
    all_captions,
    known_images,
    listing_of,
    refused_images,
    write_listing,
)
from openmofi.review.missing.phrases import (
    Bearers,
    Phrases,
    as_written,
    count_phrases,
    find_bearers,
    is_numeral,
)
from openmofi.review.missing.proposals import FILE, Example, Nearest, Proposal, proposal_ids, write_proposals
from openmofi.review.missing.propose import MOST_OF_A_PHRASE, Evidence, Finding, KnownLooks, propose
from openmofi.select.selection import Selection

IMAGES, VECTORS = "images", "vectors"
_BACKGROUND = 4096
"""Refused images, drawn whatever their captions say, that a look is compared with."""
_MOST_IMAGES = 200_000
"""Refused images that are encoded at most."""
_EXAMPLES = 24
_SHOWN_NEAREST = 3


@dataclass(frozen=True)
class MissingSummary:
    """What was proposed."""

    out: Path
    proposals: int
    refused: int
    """Images that may show something unknown."""
    looked: int
    """Of them, those that were looked at."""
    dropped: dict[str, int]
    """Images without a vector, by reason."""
    phrases: int
    seconds: float


def missing_folder(i2e: Path, name: str) -> Path:
    """Returns where the proposals of a selection lie unless told otherwise, and where `serve` looks."""
    return i2e / "missing" / name


def find_missing(
    i2e: Path | str,
    *,
    name: str = "default",
    model: str | Path | None = None,
    embeddings: Path | str | None = None,
    out: Path | str | None = None,
    settings: MissingSettings | None = None,
) -> MissingSummary:
    """Proposes entities for the catalogue.

    Args:
        i2e: output of `label`.
        name: the selection whose refused images are looked at.
        model: an encoder of images, its directory or hub id.
        embeddings: vectors of the images instead, as `embed` writes them of all images.
        out: folder to write; by default `missing_folder`. The same call goes on.
        settings: see `config.MissingSettings`.

    Raises:
        InputError: there is no such selection, or the vectors are of other images.
        SettingsError: not one of `model` and `embeddings` is given.
    """
    settings = settings or MissingSettings()
    if (model is None) == (embeddings is None):
        raise SettingsError("Give either --model or --embeddings: something has to see the images.")
    started, i2e = time.monotonic(), Path(i2e)
    selection = Selection(i2e, name)
    out = missing_folder(i2e, name) if out is None else local_path(out)
    check_replaceable(out, _is_ours, "an output of `review missing`")
    with alone_in(out):
        images = refused_images(selection)
        stop = stop_words(selection.kb.languages)
        phrases, bearers = _phrases(selection, images, stop, settings.min_images)
        chosen, bearers = _images_of(bearers, len(images))
        table, entities = _listing(selection, images, chosen)
        if model is not None:
            vectors, dropped = _encoded(selection, table, model, out, settings)
        else:
            assert embeddings is not None
            vectors, dropped = _given(table, embeddings)
        evidence = _evidence(selection.kb, images, phrases, bearers, vectors, entities, len(chosen))
        with progress("propose", total=len(phrases), unit="phrases") as bar:
            findings = propose(evidence, least=settings.min_images, advance=bar.advance)
        made = _proposals(selection, images, chosen, table, evidence, findings)
        write_proposals(out, made, _members(selection, images, chosen, table, findings, made))
        summary = MissingSummary(
            out,
            len(made),
            images.all,
            len(chosen),
            dropped,
            len(phrases),
            round(time.monotonic() - started, 2),
        )
        card = {
            "openmofi": openmofi.__version__,
            "i2e": str(i2e.resolve()),
            "selection": name,
            "kb": selection.card["kb"],
            "model": model and str(model),
            "embeddings": embeddings and str(embeddings),
            "settings": vars(settings),
            "counts": {k: v for k, v in vars(summary).items() if k != "out"},
        }
        with replace_file(out / "card.json") as partial:
            partial.write_text(json.dumps(card, indent=1))
    return summary


def _is_ours(out: Path) -> bool:
    return any((out / name).exists() for name in (FILE, IMAGES, ".lock"))


def _phrases(
    selection: Selection, images: RefusedImages, stop: frozenset[str], least: int
) -> tuple[Phrases, Bearers]:
    """Returns the phrases that refused images bear more often than others, and their bearers."""
    batches = [chunk for chunk in images.caption.combine_chunks().chunks] if isinstance(
        images.caption.combine_chunks(), pa.ChunkedArray
    ) else [images.caption.combine_chunks()]
    counted = count_phrases(batches, all_captions(selection), stop, least=least)
    everywhere = counted.everywhere * images.drawn
    usual = images.all / max(int(selection.card["funnel"]["pairs"]), 1)
    often = counted.refused >= usual * everywhere
    key = counted.key[often]
    bearers = find_bearers(batches[0], key, stop)
    named = np.array([bool(text) and not is_numeral(text) for text in bearers.text], bool)
    bearers = bearers.keep(named)
    kept = Phrases(key[named], counted.refused[often][named], everywhere[often][named])
    return kept, bearers


def _images_of(bearers: Bearers, count: int) -> tuple[np.ndarray, Bearers]:
    """Returns the images to look at, the background first, and the bearers counted among them."""
    background, most = min(_BACKGROUND, count), MOST_OF_A_PHRASE
    while True:
        wanted = bearers.first(most)
        chosen = np.union1d(np.arange(background), wanted.image)
        if len(chosen) <= _MOST_IMAGES or most <= 8:
            break
        most //= 2
    chosen = chosen[:_MOST_IMAGES]
    return chosen, wanted.among(chosen)


def _listing(
    selection: Selection, images: RefusedImages, chosen: np.ndarray
) -> tuple[pa.Table, list[str]]:
    refused = listing_of(selection, images, chosen)
    known, entities = known_images(selection, len(refused))
    return pa.concat_tables([refused, known]), entities


def _encoded(
    selection: Selection,
    table: pa.Table,
    model: str | Path,
    out: Path,
    settings: MissingSettings,
) -> tuple[np.ndarray, dict[str, int]]:
    """Returns the vector of each row, NaN where the image cannot be read; goes on after a kill."""
    digest = _digest(selection, settings)
    listing, vectors = out / IMAGES, out / VECTORS
    if _made_of(listing) != digest:
        shutil.rmtree(vectors, ignore_errors=True)
        with new_folder(listing) as folder:
            write_listing(folder, table, selection.card["input"], digest)
    ours = {field.name for field in fields(EmbedSettings)}
    given = EmbedSettings(**{k: v for k, v in vars(settings).items() if k in ours})
    summary = embed(model, listing, out=vectors, settings=given)
    found = None
    for batch in embedding_batches(vectors):
        if found is None:
            found = np.full((len(table), batch.vectors.shape[1]), np.nan, np.float32)
        found[batch.rows["labels_row"].to_numpy()] = batch.vectors
    assert found is not None
    return found, summary.refused


def _given(table: pa.Table, embeddings: Path | str) -> tuple[np.ndarray, dict[str, int]]:
    """Returns the vector of each row out of a file, NaN where it has none."""
    for keys_of in (_places, _keys):
        found, wanted = None, keys_of(table, "key")
        order = np.argsort(wanted, kind="stable")
        ranked = wanted[order]
        for batch in embedding_batches(embeddings):
            if not len(batch.rows):
                continue
            if found is None:
                found = np.full((len(table), batch.vectors.shape[1]), np.nan, np.float32)
            _fill(found, order, ranked, keys_of(batch.rows, "id"), batch)
        if found is not None and not np.isnan(found[:, 0]).all():
            lost = int(np.isnan(found[:, 0]).sum())
            return found, {"no_vector": lost} if lost else {}
    raise InputError(
        f"{str(embeddings)!r} has no vector of an image that the selection refused; expected "
        "vectors of the whole input, as `openmofi embed MODEL INPUT` writes them."
    )


def _fill(
    found: np.ndarray, order: np.ndarray, ranked: np.ndarray, keys: np.ndarray, batch: Embeddings
) -> None:
    sorting = np.argsort(keys, kind="stable")
    place, there = find(keys[sorting], ranked)
    found[order[there]] = batch.vectors[sorting[place[there]]]


def _places(rows: pa.Table, name: str) -> np.ndarray:
    """Returns a key of where each row's image lies."""
    texts = [rows[column].cast(pa.string()).fill_null("") for column in ("shard", "path", "offset")]
    joined = pc.binary_join_element_wise(*texts, "\x00")
    return text_keys(joined.combine_chunks())


def _keys(rows: pa.Table, name: str) -> np.ndarray:
    return text_keys(rows[name].cast(pa.string()).fill_null("").combine_chunks())


def _digest(selection: Selection, settings: MissingSettings) -> str:
    about = [(selection.folder / "card.json").read_bytes(), str(settings.min_images).encode()]
    stat = (selection.folder / "refused.parquet").stat()
    about.append(f"{stat.st_mtime_ns} {stat.st_size} {openmofi.__version__}".encode())
    return hashlib.sha256(b"\n".join(about)).hexdigest()[:16]


def _made_of(listing: Path) -> str | None:
    try:
        return json.loads((listing / "card.json").read_text())["made_of"]
    except (OSError, ValueError, KeyError):
        return None


# ---- what the proposals are made from -----------------------------------------------------------


def _evidence(
    kb: KnowledgeBase,
    images: RefusedImages,
    phrases: Phrases,
    bearers: Bearers,
    vectors: np.ndarray,
    entities: list[str],
    count: int,
) -> Evidence:
    background = np.arange(min(_BACKGROUND, len(images), count))
    seen = ~np.isnan(vectors[:, 0])
    vectors = np.where(seen[:, None], vectors, 0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    usable = background[seen[background]]
    if len(usable):
        vectors -= vectors[usable].mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    once = _first_of_equal(vectors[:count]) & seen[:count]
    ids, begins, own = _by_entity(entities, seen[count:])
    number = {one: i for i, one in enumerate(ids)}

    def meanings(text: str) -> list[int]:
        return [number.get(one, -1) for one in kb.lookup([text])["id"].to_pylist()]

    return Evidence(
        bearers.only(once),
        phrases.everywhere,
        phrases.refused,
        vectors[:count],
        usable,
        KnownLooks(ids, begins, vectors[count:][own]),
        meanings,
    )


def _first_of_equal(vectors: np.ndarray) -> np.ndarray:
    """Returns which vectors no earlier one equals: copies of an image count once."""
    seen: set[bytes] = set()
    first = np.zeros(len(vectors), bool)
    for i, vector in enumerate(vectors):
        key = vector.tobytes()
        first[i] = key not in seen
        seen.add(key)
    return first


def _by_entity(entities: list[str], seen: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    names = np.array(entities, object)
    own = np.flatnonzero(seen)
    if not len(own):
        return [], np.zeros(1, np.int64), own
    ids, inverse = np.unique(names[own].astype(str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    begins = np.searchsorted(inverse[order], np.arange(len(ids) + 1))
    return ids.tolist(), begins, own[order]


def _proposals(
    selection: Selection,
    images: RefusedImages,
    chosen: np.ndarray,
    table: pa.Table,
    evidence: Evidence,
    findings: list[Finding],
) -> list[Proposal]:
    kb, files = selection.kb, selection.shards["file"].to_pylist()
    texts, made = evidence.bearers.text, []
    ids = proposal_ids([texts[one.phrase] for one in findings], kb)
    for one, id_ in zip(findings, ids, strict=True):
        rows = table.take(pa.array(one.images[: 4 * _EXAMPLES])).to_pylist()
        captions = [row["caption"] for row in rows]
        places = chosen[one.images[:_EXAMPLES]]
        examples = [
            Example(files[images.file[p]], int(images.row[p]), row["key"] or "", row["shard"], row["caption"])
            for p, row in zip(places.tolist(), rows, strict=False)
        ]
        aliases = [_written(table, evidence, phrase) for phrase in one.others]
        nearest = [
            Nearest(e := evidence.known.ids[number], _label(kb, e), round(cosine, 3), round(apart, 3))
            for number, cosine, apart in one.nearest[:_SHOWN_NEAREST]
        ]
        text = texts[one.phrase]
        made.append(
            Proposal(
                id_,
                as_written(captions, text),
                aliases,
                round(one.share * float(evidence.everywhere[one.phrase]) / max(images.drawn, 1e-9)),
                len(one.images),
                round(one.share, 3),
                round(one.look.purity, 3),
                round(one.look.cohesion, 3),
                round(one.look.evidence, 1),
                round(one.value, 1),
                nearest,
                kb.lookup([text])["id"].to_pylist()[:5],
                examples,
            )
        )
    return made


def _members(
    selection: Selection,
    images: RefusedImages,
    chosen: np.ndarray,
    table: pa.Table,
    findings: list[Finding],
    made: list[Proposal],
) -> pa.Table:
    """Returns a row for each image of each proposal."""
    own = np.concatenate([np.zeros(0, np.int64), *(one.images for one in findings)])
    proposal = np.repeat(np.arange(len(findings)), [len(one.images) for one in findings])
    labels = pa.array(selection.shards["file"].to_pylist(), pa.string())
    places = chosen[own]
    return pa.table(
        {
            "proposal": pa.array([one.id for one in made], pa.string()).take(pa.array(proposal)),
            "labels": labels.take(pa.array(images.file[places])),
            "row": pa.array(images.row[places], pa.int64()),
            **{n: table[n].take(pa.array(own)) for n in ("key", "shard", "caption")},
        }
    )


def _written(table: pa.Table, evidence: Evidence, phrase: int) -> str:
    rows = evidence.bearers.of(phrase)[:_EXAMPLES]
    captions = table["caption"].take(pa.array(rows)).to_pylist()
    return as_written(captions, evidence.bearers.text[phrase])


def _label(kb: KnowledgeBase, identifier: str) -> str:
    row = kb.row_of(identifier)
    return identifier if row is None else kb.texts.label[row].as_py()
