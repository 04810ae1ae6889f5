"""What readers of hard mentions learn from: annotated texts -> mentions with candidates and truth.

In: what a linker offers for the mentions of annotated texts. Out: `MentionExamples`, of any number
of files and knowledge bases, and parts of them, padded.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.arrays.runs import repeat_runs, run_lengths
from openmofi.kb.text import canonical
from openmofi.link.disambiguate import logits
from openmofi.link.fit import LinkExamples, evidence_in
from openmofi.link.fusion import CandidateTexts, HardMentions, features_of, texts_of
from openmofi.link.linker import Linker
from openmofi.link.weights import LinkWeights

_DESCRIPTIONS_PER_MENTION = 8
_PER_SENSE = 12
"""Most mentions of one name in one sense in descriptions: thousands of genera are «genus of …»."""


@dataclass(frozen=True)
class MentionExamples:
    """Mentions whose truth is known."""

    mentions: HardMentions
    """With positions in `texts` for entities."""
    texts: CandidateTexts
    """Those of the candidates."""
    target: Float[np.ndarray, " c"]
    """Probability that this is meant: 0 or 1 where people annotated."""
    logit: Float[np.ndarray, " c"]
    """By the linear score, relative to NIL."""
    knows_nil: Bool[np.ndarray, " m"]
    """Whether all mentions of its text are annotated."""
    names: list[str]
    """Canonical form of every mention."""

    def __len__(self) -> int:
        return len(self.mentions)

    @property
    def begin(self) -> Int[np.ndarray, " m1"]:
        """First candidate of every mention, and the number of candidates."""
        return self.mentions.begin

    def digest(self, weights: LinkWeights) -> str:
        """Returns what tells these examples, scored by these weights, from all others."""
        mentions, texts = self.mentions, self.texts
        told = [mentions.texts, texts.ids, texts.described, self.names, asdict(weights)]
        digest = hashlib.sha256(json.dumps(told).encode())
        places = (mentions.start, mentions.end, mentions.item, mentions.entity)
        for array in (*places, mentions.features, self.target, self.knows_nil):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def some(self, rows: Int[np.ndarray, " b"], most: int | None = None) -> MentionExamples:
        """Returns some mentions.

        Args:
            rows: of the mentions.
            most: candidates of each, the most probable among them, given that one of them is
                meant; all by default.
        """
        begin, kept = self.begin, []
        for row in rows.tolist():
            own = np.arange(begin[row], begin[row + 1])
            first = np.argsort(-self.target[own], kind="stable")[:most]
            kept.append(own[np.sort(first)])
        at = np.concatenate(kept)
        mentions, sizes = self.mentions, [len(part) for part in kept]
        target = self.target[at]
        if len(target):
            sums = np.add.reduceat(target, np.cumsum([0, *sizes[:-1]]))
            target = target / np.repeat(np.where(sums > 0, sums, 1), sizes)
        chosen = HardMentions(
            [mentions.texts[i] for i in rows.tolist()],
            mentions.start[rows],
            mentions.end[rows],
            np.repeat(np.arange(len(rows)), sizes),
            mentions.entity[at],
            mentions.features[at],
        )
        return replace(
            self,
            mentions=chosen,
            target=target,
            logit=self.logit[at],
            knows_nil=self.knows_nil[rows],
            names=[self.names[i] for i in rows.tolist()],
        )

    def padded(
        self, values: np.ndarray, empty: float
    ) -> tuple[np.ndarray, Bool[np.ndarray, "m k"]]:
        """Returns values of candidates [m, k], and where there is a candidate."""
        begin = self.begin
        places = begin[:-1, None] + np.arange(int(np.diff(begin).max()))
        offered = places < begin[1:, None]
        return np.where(offered, values[np.where(offered, places, 0)], empty), offered


def examples_of_group(linker: Linker, group: LinkExamples, texts: list[str]) -> MentionExamples:
    """Returns the mentions of one file as a reader sees them.

    A single candidate teaches nothing where NIL is not annotated.

    Args:
        linker: offered the candidates.
        group: the candidates.
        texts: those of the file.
    """
    if not group.complete:
        sizes = run_lengths(group.begin, len(group.target))
        several = np.repeat(sizes > 1, sizes)
        kept = pa.array(several)
        types, candidates = group.types.filter(kept), group.candidates.filter(kept)
        group = replace(group, candidates=candidates, target=group.target[several], types=types)
    table, weights = group.candidates, linker.weights
    evidence = evidence_in(group, weights.types)
    logit = logits(evidence, weights) if len(group) else np.zeros(0)
    begin = group.begin
    known, place = np.unique(linker.kb.rows_of(table["id"].to_pylist()), return_inverse=True)
    mentions = HardMentions(
        [texts[row] for row in table["row"].to_numpy()[begin].tolist()],
        table["start"].to_numpy()[begin].astype(np.int64),
        table["end"].to_numpy()[begin].astype(np.int64),
        np.repeat(np.arange(len(begin)), run_lengths(begin, len(group.target))),
        place.astype(np.int64),
        features_of(evidence, logit, weights.nil),
    )
    return MentionExamples(
        mentions,
        texts_of(linker.kb, known),
        group.target,
        logit - weights.nil,
        np.full(len(begin), group.complete),
        [canonical(surface) for surface in table["surface"].take(begin).to_pylist()],
    )


def examples_of_descriptions(
    linker: Linker, *, most: int, seed: int = 0, keep: Callable[[str], bool] = lambda name: True
) -> MentionExamples:
    """Returns names in descriptions of entities that mean a type of the entity.

    «Lake in Bavaria» is of an entity whose types have one that is called lake: this sense is meant,
    not the colour. So a knowledge base with types is a text that is annotated in part.

    Args:
        linker: finds the candidates; by its knowledge base.
        most: largest number of mentions.
        seed: draws the descriptions.
        keep: which canonical names may be learnt from.
    """
    kb = linker.kb
    key = random_key(seed, Purpose.FUSION_DESCRIPTIONS)
    drawn = np.random.default_rng(key).permutation(len(kb))[: _DESCRIPTIONS_PER_MENTION * most]
    texts = kb.texts.description.take(pa.array(drawn))
    types = kb.entities(["types"])["types"].combine_chunks()
    own_types = [set(own or ()) for own in types.take(pa.array(drawn)).to_pylist()]
    found = linker.link(texts, all_candidates=True)
    rows, ids = found["row"].to_numpy(), found["id"].to_pylist()
    right = np.array([own in own_types[row] for row, own in zip(rows, ids, strict=True)], bool)
    begin = np.flatnonzero(found["rank"].to_numpy() == 0)
    once = np.add.reduceat(right, begin, dtype=int) == 1 if len(begin) else np.zeros(0, bool)
    taken: Counter[tuple[str, str]] = Counter()
    kept = np.zeros(len(begin), bool)
    first = np.flatnonzero(right)
    surfaces = found["surface"].take(begin[once]).to_pylist()
    meant = first[np.searchsorted(first, begin[once])]
    for mention, surface, at in zip(np.flatnonzero(once), surfaces, meant, strict=True):
        name = canonical(surface)
        if taken.total() < most and keep(name) and taken[name, ids[at]] < _PER_SENSE:
            taken[name, ids[at]] += 1
            kept[mention] = True
    chosen = repeat_runs(kept, begin, len(found))
    candidates = found.filter(pa.array(chosen))
    of_candidates = pa.array(kb.rows_of(candidates["id"].to_pylist()), pa.int64())
    group = LinkExamples(candidates, right[chosen] * 1.0, types.take(of_candidates), complete=False)
    return examples_of_group(linker, group, [text or "" for text in texts.to_pylist()])


def joined(parts: Sequence[MentionExamples]) -> MentionExamples:
    """Returns the examples of several files or knowledge bases as one."""
    mentions = [part.mentions for part in parts]
    first = np.cumsum([0, *(len(one) for one in mentions)])
    first_text = np.cumsum([0, *(len(part.texts) for part in parts)])
    return MentionExamples(
        HardMentions(
            [text for one in mentions for text in one.texts],
            np.concatenate([one.start for one in mentions]),
            np.concatenate([one.end for one in mentions]),
            np.concatenate([m.item + at for m, at in zip(mentions, first, strict=False)]),
            np.concatenate([m.entity + at for m, at in zip(mentions, first_text, strict=False)]),
            np.concatenate([one.features for one in mentions]),
        ),
        CandidateTexts(
            [text for part in parts for text in part.texts.ids],
            [text for part in parts for text in part.texts.labels],
            [text for part in parts for text in part.texts.described],
        ),
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.logit for part in parts]),
        np.concatenate([part.knows_nil for part in parts]),
        [name for part in parts for name in part.names],
    )
