"""Captions -> entities: mentions, candidates and scores, for any number of captions.

In: captions and a knowledge base. Out: a table of `schema.CANDIDATES`.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from openmofi.config import LinkSettings
from openmofi.errors import InputError
from openmofi.kb.store import KnowledgeBase
from openmofi.kb.text import tokenise
from openmofi.link.candidates import Candidates, find_candidates
from openmofi.link.disambiguate import ContextScorer, TextEncoder, context_scores, rank_by_score
from openmofi.link.mentions import Mentions, find_mentions, stop_keys
from openmofi.schema import CANDIDATES

# Captions per pass: large enough for array arithmetic, small enough for the processor's caches.
_BATCH = 4096

Captions = Sequence[str | None] | pa.Array | pa.ChunkedArray


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
        settings: LinkSettings | None = None,
    ):
        self.kb, self.settings = kb, settings or LinkSettings()
        self._context = ContextScorer(encoder, kb.entity_text) if encoder else None
        self._stopped = stop_keys(kb.index, kb.hasher)

    def link(self, captions: Captions, all_candidates: bool = False) -> pa.Table:
        """Finds the entities that captions name.

        Args:
            captions: texts; None and "" have no mentions.
            all_candidates: return every candidate of a mention, not only the best.

        Returns:
            `schema.CANDIDATES`, in order of caption, start and rank; `context` is null without
            an encoder.

        Raises:
            InputError: a caption is not text.
        """
        if isinstance(captions, str):
            raise InputError(f"Linker.link expects a list of captions; write link([{captions!r}]).")
        batches = [
            self._link_batch(_texts(captions, at), at, all_candidates)
            for at in range(0, len(captions), _BATCH)
        ]
        return pa.Table.from_batches(batches, CANDIDATES).combine_chunks()

    def _link_batch(
        self, captions: Sequence[str | None], offset: int, all_candidates: bool
    ) -> pa.RecordBatch:
        mentions = find_mentions(
            tokenise(captions),
            index=self.kb.index,
            hasher=self.kb.hasher,
            stopped=self._stopped,
            settings=self.settings,
        )
        candidates = find_candidates(
            mentions, index=self.kb.index, max_candidates=self.settings.max_candidates
        )
        surfaces = _surfaces(captions, mentions)
        columns = self._scored(captions, mentions, candidates)
        if not all_candidates:
            best = np.flatnonzero(columns["rank"] == 0)
            columns = {name: column[best] for name, column in columns.items()}
        return self._batch(columns, mentions, surfaces, offset)

    def _scored(
        self, captions: Sequence[str | None], mentions: Mentions, candidates: Candidates
    ) -> dict[str, np.ndarray]:
        """Returns mention, rank, entity, prior, context and score, best candidate first."""
        plain = {
            "mention": candidates.mention,
            "rank": candidates.rank,
            "entity": candidates.entity,
            "prior": candidates.prior,
        }
        if self._context is None or not len(candidates):
            return {**plain, "score": candidates.prior}
        caption_of = mentions.row[candidates.mention]
        texts = [caption or "" for caption in captions]
        cosines = self._context.cosines(texts, caption_of, candidates.entity)
        scores = context_scores(candidates, cosines, self.settings.context_weight)
        order, rank = rank_by_score(candidates, scores)
        scored = {**plain, "context": cosines, "score": scores}
        return {**{name: column[order] for name, column in scored.items()}, "rank": rank}

    def _batch(
        self, columns: dict[str, np.ndarray], mentions: Mentions, surfaces: pa.Array, offset: int
    ) -> pa.RecordBatch:
        mention = columns["mention"]
        context = columns.get("context")
        arrays = {
            "row": mentions.row[mention] + offset,
            "start": mentions.start[mention],
            "end": mentions.end[mention],
            "surface": surfaces.take(pa.array(mention)),
            "id": self.kb.ids.take(pa.array(columns["entity"])),
            "rank": columns["rank"],
            "prior": columns["prior"].astype(np.float32),
            "context": pa.nulls(len(mention)) if context is None else context,
            "score": columns["score"].astype(np.float32),
        }
        typed = [
            pa.array(arrays[name]).cast(CANDIDATES.field(name).type) for name in CANDIDATES.names
        ]
        return pa.RecordBatch.from_arrays(typed, schema=CANDIDATES)


def _texts(captions: Captions, at: int) -> Sequence[str | None]:
    piece = captions[at : at + _BATCH]
    return piece.to_pylist() if isinstance(piece, (pa.Array, pa.ChunkedArray)) else piece


def _surfaces(captions: Sequence[str | None], mentions: Mentions) -> pa.Array:
    spans = zip(mentions.row.tolist(), mentions.start.tolist(), mentions.end.tolist(), strict=True)
    return pa.array([(captions[row] or "")[start:end] for row, start, end in spans], pa.string())
