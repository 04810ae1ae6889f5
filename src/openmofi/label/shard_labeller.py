"""One shard: its pairs -> candidates from the captions -> images of those with any -> scored rows.

The text comes first: an image whose caption yields no candidate is never opened. With a second
encoder, it looks last, and only at images where that may change a label (second_look.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from openmofi.config import LabelSettings, LinkSettings
from openmofi.errors import InputError
from openmofi.images.look import SeenImage, decode, fetch, look
from openmofi.kb import KnowledgeBase
from openmofi.label.background import (
    BackgroundSample,
    draw,
    read_background,
    read_candidates_of_background,
)
from openmofi.label.earlier import EarlierLabels, EarlierShard
from openmofi.label.encoder import (
    Encoder,
    decode_threads,
    load_encoder,
    own_device,
    share_cores,
)
from openmofi.label.entity_vectors import EntityVectors
from openmofi.label.fusion import open_fusion
from openmofi.label.image_scorer import ImageScorer, unseen
from openmofi.label.label_table import Seen, labels_table
from openmofi.label.score import load_weights
from openmofi.label.second_look import SecondLook, read_second_look
from openmofi.label.second_looker import SecondLooker, learn_second_look
from openmofi.label.text_context import text_linker
from openmofi.label.text_regions import Regions, TextRegions
from openmofi.link import Linker, WordEncoder
from openmofi.pairs import ShardView, count_errors, open_shard, read_shard
from openmofi.refused import Refused
from openmofi.shards import Shard, ShardResult, tick, worker_number

T = TypeVar("T")
Looked = tuple[SeenImage | Refused, Regions | None]


@dataclass(frozen=True)
class Job:
    """Everything a worker process needs to label a shard; small and picklable."""

    root: Any
    kb: Path
    model: str | None
    out: Path
    settings: LabelSettings
    vectors: Path
    """Path of the entities' vectors."""
    context_vectors: Path | None = None
    """The same of the text encoder that --context names."""
    onto: Path | None = None
    """Output of an earlier job over the same images."""
    then: str | None = None
    """The second encoder."""
    then_vectors: Path | None = None
    """Path of its vectors of entities."""


class ShardLabeller:
    """Labels shards; keeps the encoder, the linker and the entities' vectors between shards."""

    def __init__(
        self,
        job: Job,
        *,
        workers: int = 1,
        encoder: Encoder | None = None,
        large: Encoder | None = None,
    ):
        self.job, self.settings = job, job.settings
        self.kb = KnowledgeBase.open(job.kb)
        self.encoder = encoder or self._load_encoder(job.model, workers)
        self._large = large or self._load_encoder(job.then, workers)
        self.linker = self._make_linker(workers)
        self._finder = TextRegions() if self.settings.text_regions else None
        self._threads = decode_threads(self.encoder, workers)
        self._earlier = EarlierLabels(job.onto, self.kb) if job.onto else None

    def _load_encoder(self, model: str | None, workers: int) -> Encoder | None:
        return None if model is None else load_encoder(model, **self._placement(workers))

    def _placement(self, workers: int) -> dict[str, Any]:
        settings = self.settings
        placed = {"device": settings.device, "precision": settings.precision}
        return {**placed, "number": worker_number(), "workers": workers}

    def _make_linker(self, workers: int) -> Linker:
        context, settings = self.settings.context, self.settings
        chosen = LinkSettings(priors=settings.priors, read_above=settings.read_above)
        others: dict[str, Any] = {"settings": chosen}
        if settings.fusion is not None:
            share_cores(workers)
            device = own_device(settings.device, worker_number())
            folder = Path(settings.fusion)
            others["fusion"] = open_fusion(folder, self.kb, self.job.out, device=device)
        if context == "words":
            return Linker(self.kb, encoder=WordEncoder(self.kb), **others)
        if self.job.context_vectors is None:
            assert self.encoder is not None
            return text_linker(self.kb, self.encoder, self.job.vectors, **others)
        encoder = load_encoder(context, **self._placement(workers), texts_alone=True)
        return text_linker(self.kb, encoder, self.job.context_vectors, **others)

    @cached_property
    def _scorer(self) -> ImageScorer:
        assert self.encoder is not None
        vectors = EntityVectors(self.kb, self.encoder, self.job.vectors)
        return ImageScorer(self.kb, vectors, read_background(self.job.out), load_weights())

    @cached_property
    def _large_scorer(self) -> ImageScorer:
        assert self._large is not None
        assert self.job.then_vectors is not None
        vectors = EntityVectors(self.kb, self._large, self.job.then_vectors)
        background = read_background(self.job.out, by_large=True)
        return ImageScorer(self.kb, vectors, background, load_weights())

    @cached_property
    def _second_looker(self) -> SecondLooker:
        return SecondLooker(read_second_look(self.job.out)[0], self._large_scorer)

    def learn_second_look(self) -> tuple[SecondLook, dict[str, float]]:
        """Returns what the background teaches of when the second encoder has to look."""
        settings = self.settings
        asked = {"rate": settings.then_rate, "share": settings.then_share}
        candidates = read_candidates_of_background(self.job.out)
        return learn_second_look(self._scorer, self._large_scorer, candidates, **asked)

    def __call__(self, shard: Shard) -> ShardResult:
        """Returns one row per pair of the shard, in input order.

        Raises:
            InputError: the shard as a whole does not have the format of its suffix.
            OSError: the shard has vanished.
        """
        with open_shard(self.job.root, shard) as view:
            pairs = view.pairs.table
            usable = np.flatnonzero(_is_ok(pairs))
            candidates, rows = self._link(pairs, usable)
            again, known, earlier = self._to_look_at(shard, pairs, candidates, rows)
            tick(len(pairs) - len(again))
            seen = self._look(view, rows, again)
            damage = view.pairs.damage
            if earlier is not None:
                rest = np.setdiff1d(np.arange(len(rows)), again)
                earlier.remember(seen, rest, rows[rest])
            readable = seen.readable[candidates["place"].to_numpy()]
            candidates, known = candidates.filter(pa.array(readable)), known[readable]
            terms, twice = unseen(candidates), 0
            if self.encoder:
                images = {"vectors": seen.vectors, "words": seen.words}
                terms = self._scorer.terms(candidates, **images, known=known)
            if self._large:
                candidates, terms, twice = self._look_again(view, rows, seen, candidates, terms)
        table = labels_table(pairs, rows, seen, candidates, terms)
        extra = {}
        if self.settings.keep_embeddings and self.encoder:
            extra["embeddings"] = seen.embeddings(pairs["key"], rows)
        named = len(np.unique(candidates["place"].to_numpy()))
        errors = dict(count_errors(table))
        looked = {"looked": len(again), "looked_twice": twice}
        return ShardResult(table, errors, damage, extra, kept=named, **looked)

    def _to_look_at(
        self, shard: Shard, pairs: pa.Table, candidates: pa.Table, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, EarlierShard | None]:
        """Returns (places in `rows`, known cosines of the candidates, what was seen before)."""
        known = np.full(len(candidates), np.nan, np.float32)
        earlier = self._earlier.of(shard, pairs) if self._earlier else None
        if earlier is None:
            return np.arange(len(rows)), known, None
        lacking = ~earlier.opened(rows)
        if self.encoder:
            place = candidates["place"].to_numpy()
            known = earlier.cosines(rows[place], candidates["id"])
            lacking[place[np.isnan(known)]] = True
            known[lacking[place]] = np.nan  # as one image gives them
        return np.flatnonzero(lacking), known, earlier

    def _link(self, pairs: pa.Table, usable: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        """Returns (candidates with `place`, the row of the shard for each place)."""
        captions = pairs["caption"].take(pa.array(usable)).combine_chunks()
        candidates = self.linker.link(captions, all_candidates=True)
        named, place = np.unique(candidates["row"].to_numpy(), return_inverse=True)
        return candidates.append_column("place", pa.array(place)), usable[named]

    def _look(self, view: ShardView, rows: np.ndarray, places: np.ndarray) -> Seen:
        """Decodes and encodes the images of some rows, at these places among them."""
        seen = Seen(len(rows), self.encoder.dim if self.encoder else 0)
        size, at = self.settings.batch_size, 0
        for batch in self._batches(view, rows[places], self._image):
            good, pixels = [], []
            for place, (image, regions) in zip(places[at:].tolist(), batch, strict=False):
                seen.note(place, image, regions)
                if isinstance(image, SeenImage):
                    good.append(place)
                    pixels.append(image.pixels)
            if good and self.encoder:
                seen.vectors[good] = self.encoder.encode_pixels_alone(np.stack(pixels), size)
            at += len(batch)
            tick(len(batch))
        return seen

    def _look_again(
        self,
        view: ShardView,
        rows: np.ndarray,
        seen: Seen,
        candidates: pa.Table,
        terms: dict[str, np.ndarray],
    ) -> tuple[pa.Table, dict[str, np.ndarray], int]:
        """Returns (candidates, their terms, number of images that the second encoder looked at)."""
        background, words, looked = self._large_scorer.background, seen.words, 0

        def encode(places: np.ndarray) -> np.ndarray:
            nonlocal looked
            at = {word: i for i, word in enumerate(background.words.tolist())}
            drawn = np.array([at.get(word, -1) for word in words[places].tolist()], np.int64)
            vectors, new = background.images[drawn], np.flatnonzero(drawn < 0)
            vectors[new] = self._encode_large(view, rows[places[new]], places[new], seen)
            looked = len(new)
            return vectors

        terms = self._second_looker.complete(candidates, terms, words, encode)
        readable = seen.readable[candidates["place"].to_numpy()]
        kept = {name: values[readable] for name, values in terms.items()}
        return candidates.filter(pa.array(readable)), kept, looked

    def _encode_large(
        self, view: ShardView, rows: np.ndarray, places: np.ndarray, seen: Seen
    ) -> np.ndarray:
        """Returns the second encoder's vectors of rows' images.

        Args:
            view: the shard.
            rows: of the shard.
            places: of these rows in `seen`.
            seen: takes the reasons for which images cannot be read any more.
        """
        assert self._large is not None
        large, size, at = self._large, self.settings.batch_size, 0
        vectors = np.zeros((len(rows), large.dim), np.float32)

        def pixels_of(view: ShardView, row: int) -> np.ndarray | Refused:
            found = decode(view.read, row, large.transform)
            return found if isinstance(found, Refused) else found[0]

        for batch in self._batches(view, rows, pixels_of):
            good, pixels = [], []
            for number, found in enumerate(batch, at):
                if isinstance(found, Refused):
                    seen.error[places[number]] = found.reason
                else:
                    good.append(number)
                    pixels.append(found)
            if good:
                vectors[good] = large.encode_pixels_alone(np.stack(pixels), size)
            at += len(batch)
        return vectors

    def _batches(
        self, view: ShardView, rows: np.ndarray, see: Callable[[ShardView, int], T]
    ) -> Iterator[list[T]]:
        """Yields what was seen, batch by batch; decodes ahead if there are several threads."""
        size = self.settings.batch_size
        batches = [rows[i : i + size].tolist() for i in range(0, len(rows), size)]
        if self._threads == 1:
            for batch in batches:
                yield [see(view, row) for row in batch]
            return
        with ThreadPoolExecutor(self._threads) as pool:
            ahead = []
            for batch in batches:
                ahead.append([pool.submit(see, view, row) for row in batch])
                if len(ahead) > 1:
                    yield [future.result() for future in ahead.pop(0)]
            for futures in ahead:
                yield [future.result() for future in futures]

    def _image(self, view: ShardView, row: int) -> Looked:
        """Returns (the image or a Refused, the text in it)."""
        data = fetch(view.read, row)
        if isinstance(data, Refused):
            return data, None
        transform = self.encoder.transform if self.encoder else None
        found = look(data, transform, keep_image=self._finder is not None)
        if self._finder is None or isinstance(found, Refused) or found.image is None:
            return found, None
        try:
            return replace(found, image=None), self._finder.find(found.image)
        except Exception as error:  # only this row is lost, whatever the detector raises
            return Refused(type(error).__name__), None

    def background_draws(self, shard: Shard) -> np.ndarray:
        """Returns the draw of each usable pair of a shard, see `background.draw`."""
        try:
            pairs = read_shard(self.job.root, shard).table
        except (OSError, InputError):  # `background_sample` reports it
            return np.zeros(0, np.uint64)
        return draw(pairs.filter(pa.array(_is_ok(pairs))))

    def background_sample(self, shard: Shard, limit: int) -> BackgroundSample:
        """Returns images of a shard, whatever their captions name, for the background.

        Args:
            shard: the shard to sample.
            limit: largest draw of the images that are opened.
        """
        assert self.encoder is not None
        nothing = np.zeros((0, self.encoder.dim), np.float32), [], *(np.zeros(0, np.uint64),) * 2
        by_large = None
        try:
            with open_shard(self.job.root, shard) as view:
                pairs = view.pairs
                usable = np.flatnonzero(_is_ok(pairs.table))
                draws = draw(pairs.table.take(pa.array(usable)))
                usable, draws = usable[draws <= limit], draws[draws <= limit]
                places = np.arange(len(usable))
                seen = self._look(view, usable, places)
                if self._large:
                    places = places[seen.readable]
                    vectors = self._encode_large(view, usable[places], places, seen)
                    by_large = vectors[seen.readable[places]]
        except (OSError, InputError) as error:
            return BackgroundSample(*nothing, Counter([str(error).rstrip(".")]))
        rows = usable[seen.readable]
        captions = pairs.table["caption"].take(pa.array(rows)).combine_chunks()
        found = self.linker.link(captions, all_candidates=True)
        offered: list[list[str]] = [[] for _ in rows]
        for row, entity in zip(found["row"].to_pylist(), found["id"].to_pylist(), strict=True):
            offered[row].append(entity)
        refused = count_errors(pairs.table)
        refused.update(error for error in seen.error if error)
        refused.update([pairs.damage] if pairs.damage else [])
        good = seen.readable
        return BackgroundSample(
            seen.vectors[good],
            offered,
            seen.words[good],
            draws[good],
            refused,
            found.append_column("place", found["row"]),
            by_large,
        )


def _is_ok(pairs: pa.Table) -> np.ndarray:
    return np.array(pairs["status"].to_pylist(), dtype=object) == "ok"
