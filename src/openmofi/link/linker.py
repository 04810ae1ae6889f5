"""Captions -> entities: mentions, candidates and scores, for any number of captions.

In: captions and a knowledge base. Out: a table of `schema.CANDIDATES`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from openmofi.arrays.runs import repeat_runs
from openmofi.arrays.strings import slices, string_buffers
from openmofi.config import LinkSettings
from openmofi.errors import InputError, SettingsError
from openmofi.kb.index import Candidates
from openmofi.kb.store import KnowledgeBase
from openmofi.kb.text import Captions, Tokens, as_text, tokenise
from openmofi.link.accents import as_written
from openmofi.link.company import company_of
from openmofi.link.crawl_priors import CrawlPriors, read_crawl_priors
from openmofi.link.detectors import MentionDetector, combine
from openmofi.link.disambiguate import (
    HARDLY_EVER,
    RememberedVectors,
    StoredVectors,
    TextComparison,
    TextEncoder,
    case_agreement,
    evidence_of,
    logits,
    probabilities,
)
from openmofi.link.fusion import (
    FusionReader,
    HardMentions,
    Remembering,
    features_of,
    read_again,
)
from openmofi.link.linkability import TypeOdds, read_linkability
from openmofi.link.mentions import Mentions, find_mentions, given_mentions
from openmofi.link.weights import LinkWeights, check_scale, load_link_weights
from openmofi.link.words_or_names import WordsOrNames
from openmofi.schema import CANDIDATES, FUSION, KB_PRIOR

# Captions per pass: large enough for array arithmetic, small enough for the processor's caches.
_BATCH = 4096


@dataclass(frozen=True)
class _Found:
    """Mentions of a batch of captions and what each may mean."""

    mentions: Mentions
    candidates: Candidates
    detected: np.ndarray | None = None
    """The detector's score of each mention."""
    company: np.ndarray | None = None
    """What the mention's company says of each candidate, see `CrawlPriors.log_ratios`."""
    kb_prior: np.ndarray | None = None
    """The knowledge base's prior, where that of `candidates` is a crawl's."""
    are_given: bool = False
    """Whether the caller gave the mentions, so that they mean something, however improbable."""


class Linker:
    """Links captions to the entities of a knowledge base.

    Example:
        >>> Linker(KnowledgeBase.open("kb")).link(["The Hague in Spring"])  # doctest: +SKIP
    """

    def __init__(
        self,
        kb: KnowledgeBase,
        *,
        encoder: TextEncoder | None = None,
        entities: StoredVectors | None = None,
        detector: MentionDetector | None = None,
        weights: LinkWeights | None = None,
        priors: CrawlPriors | None = None,
        fusion: FusionReader | None = None,
        settings: LinkSettings | None = None,
    ):
        """Opens what linking needs of the knowledge base.

        Args:
            kb: the entities.
            encoder: compares captions with entities; without it, only the names decide.
            entities: the encoder's vectors of the entities, if they are stored; then cosines are
                standardised, and the weights have to be for such. Otherwise they are computed and
                kept in memory.
            detector: finds names in captions, which support the names of the knowledge base.
            weights: weights of the score's terms; by default `settings.weights`, or the package's.
            priors: what a crawl taught; by default that of `settings.priors`, if any.
            fusion: reads the mentions of which the score is not sure; its weights are taken.
            settings: limits.

        Raises:
            InputError: the weights are for other cosines than these.
            SettingsError: there are weights besides those of `fusion`.
            MismatchError: the priors are for another knowledge base.
        """
        self.kb, self.settings = kb, settings or LinkSettings()
        standardised = entities is not None
        if fusion is not None:
            if weights is not None or self.settings.weights:
                raise SettingsError(
                    "--fusion brings the weights that it was trained with; leave out --weights."
                )
            weights = fusion.weights
        self.weights = weights or load_link_weights(self.settings.weights, standardised)
        self._texts = None
        if encoder is not None:
            check_scale(self.weights, standardised)
            in_memory = RememberedVectors(encoder, lambda rows: kb.texts.in_full(rows).to_pylist())
            self._texts = TextComparison(encoder, entities or in_memory)
        self._detector = detector
        self._words = WordsOrNames(kb)
        self._linkability = read_linkability(kb)
        if priors is None and self.settings.priors:
            priors = read_crawl_priors(self.settings.priors, kb)
        self._priors = None if priors is None or priors.off else priors
        self.fusion = None if fusion is None else Remembering(fusion)
        self._schema = CANDIDATES if self._priors is None else CANDIDATES.append(KB_PRIOR)
        self._schema = self._schema if fusion is None else self._schema.append(FUSION)
        self._types = TypeOdds(kb, self.weights.types) if self.weights.types else None

    def link(self, captions: Captions, all_candidates: bool = False) -> pa.Table:
        """Finds the entities that captions name.

        Args:
            captions: texts, ideally an Arrow array; None and "" have no mentions.
            all_candidates: whether to return every candidate of every mention. Otherwise only the
                best, and not for a mention that more likely means nothing (NIL), or that is
                written as the best hardly ever is.

        Returns:
            `schema.CANDIDATES`, in order of caption, start and rank; terms that were not computed
            are null. With priors of a crawl, also `schema.KB_PRIOR`; with a reader,
            `schema.FUSION`.

        Raises:
            InputError: a caption is not text.
        """
        batches = [
            self._link_batch(piece, at, self._find(piece), all_candidates)
            for at, piece in _pieces(captions)
        ]
        return pa.Table.from_batches(batches, self._schema).combine_chunks()

    def link_spans(
        self, captions: Captions, spans: pa.Table, all_candidates: bool = False
    ) -> pa.Table:
        """Finds the entities that given spans of captions mean.

        Args:
            captions: texts.
            spans: table with the columns row, start and end, in code points; spans whose text is
                not a name of the knowledge base give no row.
            all_candidates: whether to return every candidate of a span, not only the best.

        Returns:
            The same as `link`.

        Raises:
            InputError: a caption is not text, or a span is outside its caption.
        """
        rows, starts, ends = _checked(spans, len(captions))
        batches = []
        for at, piece in _pieces(captions):
            here = slice(*np.searchsorted(rows, [at, at + len(piece)]))
            found = self._given(piece, at, rows[here] - at, starts[here], ends[here])
            batches.append(self._link_batch(piece, at, found, all_candidates))
        return pa.Table.from_batches(batches, self._schema).combine_chunks()

    def _find(self, captions: pa.LargeStringArray) -> _Found:
        tokens = tokenise(captions)
        mentions = find_mentions(
            tokens,
            string_buffers(captions)[1],
            index=self.kb.index,
            hasher=self.kb.hasher,
            stopped=self._words.stopped,
            settings=self.settings,
        )
        found = self._as_in_crawl(self._without_words(self._offered(mentions)), tokens)
        if self._detector is None:
            return found
        mentions = found.mentions
        spans = pa.table({name: getattr(mentions, name) for name in ("row", "start", "end")})
        boosted = combine(spans, self._detector.detect(captions.cast(pa.string())), how="boost")
        return replace(found, detected=boosted["detected"].to_numpy())

    def _offered(self, mentions: Mentions) -> _Found:
        return _Found(
            mentions, self.kb.index.candidates(mentions.key, self.settings.max_candidates)
        )

    def _without_words(self, found: _Found) -> _Found:
        """Drops candidates whose mention is written as a word, and mentions without others."""
        possible = self._words.possible(found.mentions, found.candidates)
        if possible.all():
            return found
        candidates = found.candidates.only(possible)
        left, item = np.unique(candidates.item, return_inverse=True)
        return _Found(found.mentions.only(left), replace(candidates, item=item))

    def _as_in_crawl(self, found: _Found, tokens: Tokens) -> _Found:
        """Replaces the priors by those of the crawl, and adds the mentions' company."""
        mentions, of_kb = found.mentions, as_written(found.candidates, found.mentions)
        if self._priors is None:
            return replace(found, candidates=of_kb)
        candidates = as_written(self._priors.of(mentions.key, found.candidates), mentions)
        places = mentions.row, mentions.start, mentions.end
        company = company_of(tokens, *places, self.kb.hasher)
        counts = self.weights.prior / self.weights.type if self.weights.type else 0.0
        ratios = self._priors.log_ratios(company, candidates, counts)
        return replace(found, candidates=candidates, company=ratios, kb_prior=of_kb.prior)

    def _given(
        self,
        captions: pa.LargeStringArray,
        offset: int,
        row: np.ndarray,
        start: np.ndarray,
        end: np.ndarray,
    ) -> _Found:
        used, slot = np.unique(row, return_inverse=True)
        texts = [text or "" for text in captions.take(pa.array(used)).to_pylist()]
        spans = list(zip(slot.tolist(), start.tolist(), end.tolist(), strict=True))
        for i, a, b in spans:
            if not 0 <= a <= b <= len(texts[i]):
                raise InputError(
                    f"The span {a}-{b} lies outside of caption {used[i] + offset}, which has "
                    f"{len(texts[i])} characters; spans count code points."
                )
        surfaces = pa.array([texts[i][a:b] for i, a, b in spans], pa.large_string())
        keys = self.kb.keys(surfaces)
        # Spans that are not names must not count among the caption's other mentions.
        known = np.flatnonzero(keys >= 0)
        places = row[known], start[known], end[known]
        chosen = surfaces.take(pa.array(known))
        tokens = tokenise(captions)
        mentions = given_mentions(places, tokens, chosen, keys[known])
        return replace(self._as_in_crawl(self._offered(mentions), tokens), are_given=True)

    def _link_batch(
        self,
        captions: pa.LargeStringArray,
        offset: int,
        found: _Found,
        all_candidates: bool,
    ) -> pa.RecordBatch:
        mentions, candidates = found.mentions, found.candidates
        terms = self._terms(captions, mentions, candidates)
        if found.detected is not None:
            terms["detected"] = found.detected[candidates.item]
        if found.company is not None:
            terms["type"] = found.company + terms.get("type", 0.0)
        evidence = evidence_of(candidates.rank, candidates.prior, terms)
        logit = logits(evidence, self.weights)
        score, order = probabilities(logit, candidates.rank, self.weights.nil)
        if self.fusion is not None:
            features = features_of(evidence, logit, self.weights.nil)
            offered = _as_read(captions, found, features)
            terms["fusion"] = read_again(self.fusion, score, offered, self.settings.read_above)
            logit = logit + np.nan_to_num(terms["fusion"])
            score, order = probabilities(logit, candidates.rank, self.weights.nil)
        # Candidates are reordered only within their mention: `item` and `rank` do not change.
        kept = self._kept(found, score[order], terms["case"][order], all_candidates)
        chosen = order[kept]
        columns = {
            **{name: term[chosen] for name, term in terms.items()},
            "rank": candidates.rank[kept],
            "prior": candidates.prior[chosen],
            "score": score[chosen],
        }
        if found.kb_prior is not None:
            columns["kb_prior"] = found.kb_prior[chosen]
        item, entity = candidates.item[kept], candidates.entity[chosen]
        return self._batch(offset, mentions, item, entity, columns)

    def _kept(
        self, found: _Found, score: np.ndarray, case: np.ndarray, all_candidates: bool
    ) -> np.ndarray:
        """Returns the rows to keep of the candidates in their final order."""
        begin = np.flatnonzero(found.candidates.rank == 0)
        if not len(begin):
            return begin
        least = np.full(len(begin), self.settings.min_score)
        if not (all_candidates or found.are_given):
            least = np.maximum(least, 1 - np.add.reduceat(score, begin))
            least[case[begin] == HARDLY_EVER] = np.inf
        probable = score[begin] >= least
        if not all_candidates:
            return begin[probable]
        return np.flatnonzero(repeat_runs(probable, begin, len(score)))

    def _terms(
        self, captions: pa.LargeStringArray, mentions: Mentions, candidates: Candidates
    ) -> dict[str, np.ndarray]:
        """Returns the terms, except the prior, that this linker can compute, by candidate."""
        terms = {"case": case_agreement(candidates, mentions)}
        if self._linkability is not None:
            # Not for names that the knowledge base also writes small, nor for names and mentions in
            # capitals: small letters belong to another word there (US, us).
            of_name = self._linkability.of(mentions.key)[candidates.item]
            in_capitals = candidates.is_upper & (mentions.capitals > 0)[candidates.item]
            terms["linkability"] = np.where(candidates.is_lower | in_capitals, 0.5, of_name)
        if self._types is not None:
            terms["type"] = self._types.of(candidates.entity)
        if self._texts is not None and len(candidates):
            texts = [caption or "" for caption in captions.to_pylist()]
            terms |= self._texts.terms(texts, candidates, mentions)
        return terms

    def _batch(
        self,
        offset: int,
        mentions: Mentions,
        item: np.ndarray,
        entity: np.ndarray,
        columns: dict[str, np.ndarray],
    ) -> pa.RecordBatch:
        places = mentions.raw_start[item], mentions.raw_end[item]
        offsets, surfaces = slices(mentions.raw, *places)
        buffers = pa.py_buffer(offsets), pa.py_buffer(surfaces)
        arrays = {
            "row": mentions.row[item] + offset,
            "start": mentions.start[item],
            "end": mentions.end[item],
            "surface": pa.LargeStringArray.from_buffers(len(item), *buffers),
            "id": self.kb.ids.take(pa.array(entity)),
            **columns,
        }
        typed = [
            pa.array(arrays[field.name], from_pandas=field.name == FUSION.name).cast(field.type)
            if field.name in arrays
            else pa.nulls(len(item), field.type)
            for field in self._schema
        ]
        return pa.RecordBatch.from_arrays(typed, schema=self._schema)


def _as_read(captions: pa.LargeStringArray, found: _Found, features: np.ndarray) -> HardMentions:
    """Returns all mentions of a batch as a reader takes them."""
    mentions, candidates = found.mentions, found.candidates
    texts = captions.take(pa.array(mentions.row)).to_pylist()
    places = mentions.start, mentions.end, candidates.item, candidates.entity
    return HardMentions(texts, *places, features)


def _checked(spans: pa.Table, num_captions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns row, start and end of spans, sorted.

    Raises:
        InputError: a column is missing or does not hold whole numbers, or a row is out of range.
    """
    names = ("row", "start", "end")
    for name in names:
        column = spans[name] if name in spans.column_names else None
        if column is None or column.null_count or not pa.types.is_integer(column.type):
            raise InputError(
                f"Spans need the columns row, start and end, of whole numbers without nulls; "
                f"{name!r} is {'missing' if column is None else f'of {column.type}'}."
            )
    rows, starts, ends = (spans[name].to_numpy().astype(np.int64) for name in names)
    if len(rows) and not 0 <= rows.min() <= rows.max() < num_captions:
        raise InputError(
            f"Spans have rows from {rows.min()} to {rows.max()}, but there are {num_captions} "
            "captions, counted from 0."
        )
    order = np.lexsort((ends, starts, rows))
    return rows[order], starts[order], ends[order]


def _pieces(captions: Captions) -> Iterator[tuple[int, pa.LargeStringArray]]:
    """Yields batches of captions, each with the index of its first caption."""
    if isinstance(captions, str):
        raise InputError(f"Linker.link expects a list of captions; write link([{captions!r}]).")
    if not hasattr(captions, "__getitem__"):
        kind = type(captions).__name__
        raise InputError(f"Linker.link expects captions as a list or an Arrow array, not a {kind}.")
    for at in range(0, len(captions), _BATCH):
        yield at, as_text(captions[at : at + _BATCH], at)
