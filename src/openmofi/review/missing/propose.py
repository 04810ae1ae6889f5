"""Phrases, the images that bear them and their vectors -> proposals for the catalogue.

The phrase whose images have the clearest common look is proposed first, and takes those images; the
others are weighed again without them. So "Chad" takes the images of "Chad flag", and what remains
of "flag" has no look. A phrase with two looks gives two proposals. One that looks like an earlier
proposal and stands in other captions is another name of it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from openmofi.review.missing.looks import Look, distinct_share, find_look, second_half
from openmofi.review.missing.phrases import Bearers

_CERTAIN = 4.0
"""Nats of evidence that remain after so many phrases and seeds were tried."""
_LOST = 0.2
"""Share of a look's members that others may have taken before it is sought again."""
_SAME = 0.7
"""Below this share of images that are nearer to their own mean, two groups show the same."""
_KNOWN = 0.8
"""The same where the catalogue has the name: then it is likely that the thing is known."""
_ALIKE = 0.3
"""What a proposal that looks the same as a known entity is worth: it may be another name of it."""
_RARER = 0.5
"""Another name of a thing has less than this share of its images."""
_SECOND = 0.25
"""Least size of a second look of a name, as a share of its first; less is a remainder of it."""
_STEM = 3
"""Letters that words of one stem share."""
_NEAREST = 5
"""Known entities that a group is compared with."""
MOST_OF_A_PHRASE = 200
"""Images of one phrase that are looked at."""
_REFUSED = 0.5
"""Least share of a known name's images that were refused."""
_WHOLE = 0.9
"""How nearly as well "united kingdom" has to fit as "kingdom", so that it is the name."""
_SOME = 50
"""Images whose phrases are looked through for a longer name."""


@dataclass(frozen=True)
class KnownLooks:
    """Images of known entities."""

    ids: list[str] = field(default_factory=list)
    begins: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """First image of each entity; has one more item than there are entities."""
    images: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """Unit vectors, centred as the others."""

    def of(self, entity: int) -> np.ndarray:
        """Returns the images of an entity."""
        return self.images[self.begins[entity] : self.begins[entity + 1]]

    def means(self) -> np.ndarray:
        """Returns float32 [entities, dim], unit vectors."""
        sums = np.add.reduceat(self.images, self.begins[:-1], axis=0) if self.ids else self.images
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class Finding:
    """Images of one name and one look."""

    phrase: int
    images: np.ndarray
    """The most typical one first."""
    look: Look
    share: float
    """Of all images whose captions bear the name, those in the look."""
    others: tuple[int, ...]
    """Phrases that seem to be further names."""
    nearest: tuple[tuple[int, float, float], ...]
    """Known entities: (number, cosine of the means, share of images that are not nearer to it)."""
    value: float
    """How many right labels the row is expected to bring."""


@dataclass(frozen=True)
class NamedImages:
    """What proposals are made from."""

    bearers: Bearers
    everywhere: np.ndarray
    """How many images bear each phrase, of as many as `refused` counts."""
    refused: np.ndarray
    """How many refused images bear each phrase."""
    vectors: np.ndarray
    """Unit vectors [images, dim], centred on the background."""
    background: np.ndarray
    """Images drawn from all refused ones."""
    known: KnownLooks
    meanings: Callable[[str], list[int]]
    """Known entities of a name, by number in `known`; -1: one without images."""


def propose(
    found: NamedImages, *, least: int, advance: Callable[[int], object] | None = None
) -> list[Finding]:
    """Returns proposals, those that are expected to bring most right labels first.

    Args:
        found: the phrases, images and vectors.
        least: fewest images of a proposal.
        advance: told how many phrases were looked at.
    """
    return sorted(
        _Search(found, least, advance or (lambda _: None)).run(),
        key=lambda one: (-one.value, found.bearers.text[one.phrase]),
    )


class _Search:
    def __init__(self, found: NamedImages, least: int, advance: Callable[[int], object]):
        self.found, self.least, self.advance = found, least, advance
        self.taken = np.zeros(len(found.vectors), bool)
        self.findings: list[Finding] = []
        self.known_means = found.known.means()
        self.floor = _CERTAIN + math.log(max(len(found.bearers.text), 1))
        self._meanings: dict[int, list[int]] = {}
        bearers = found.bearers
        phrase = np.repeat(np.arange(len(bearers.text)), np.diff(bearers.begins))
        order = np.argsort(bearers.image, kind="stable")
        self._phrases_of = phrase[order]
        numbers = np.arange(len(found.vectors) + 1)
        self._starts = np.searchsorted(bearers.image[order], numbers)

    def run(self) -> list[Finding]:
        """Returns the findings, the one with the most evidence first."""
        queue: list[tuple[float, int, int]] = []
        looks: dict[int, tuple[np.ndarray, Look]] = {}
        for phrase in range(len(self.found.bearers.text)):
            self._push(queue, looks, phrase)
            self.advance(1)
        while queue:
            _, _, phrase = heapq.heappop(queue)
            images, look = looks[phrase]
            members = images[look.members]
            if self.taken[members].mean() > _LOST:
                self._push(queue, looks, phrase)
                continue
            self._take(phrase, members, look)
            self._push(queue, looks, phrase)
        return self.findings

    def _push(self, queue: list, looks: dict, phrase: int) -> None:
        """Looks for a look among the images of a phrase that nobody took."""
        images = self.found.bearers.of(phrase)
        images = images[~self.taken[images]][:MOST_OF_A_PHRASE]
        vectors, others = self.found.vectors, self.found.background
        others = others[~np.isin(others, self.found.bearers.of(phrase))]
        look = find_look(vectors[images], vectors[others], least=self.least)
        if look is None:
            return
        other = second_half(vectors[images[look.members]], least=self.least)
        if other is not None:
            images = np.setdiff1d(images, images[look.members[other]])
            look = find_look(vectors[images], vectors[others], least=self.least)
        if look is None or look.evidence - math.log(len(images)) < self.floor:
            return
        looks[phrase] = images, look
        heapq.heappush(queue, (-look.evidence, -self.found.bearers.words[phrase], phrase))

    def _take(self, phrase: int, members: np.ndarray, look: Look) -> None:
        """Makes a proposal of a look, or gives it to an earlier one, or to a known entity."""
        self.taken[members] = True
        found, phrase = self.found, self._name(phrase, members)
        vectors = found.vectors[members]
        first = max((len(one.images) for one in self.findings if one.phrase == phrase), default=0)
        if len(members) < _SECOND * first:
            return
        nearest = self._nearest_known(vectors, look.mean)
        known = self._known(phrase)
        if known:
            apart = {number: share for number, _, share in nearest}
            said = [apart[number] for number in known if number in apart]
            refused = found.refused[phrase] / found.everywhere[phrase]
            if refused < _REFUSED or min(said, default=1.0) < _KNOWN:
                return
        number = self._another_name_of(phrase, members, vectors, look)
        if number is not None:
            earlier = self.findings[number]
            if phrase not in (earlier.phrase, *earlier.others):
                others = (*earlier.others, *self._alias(phrase, members, earlier))
                self.findings[number] = replace(earlier, others=others)
            return
        bearers = found.bearers.of(phrase)
        share = (
            len(members)
            / max(len(bearers[:MOST_OF_A_PHRASE]), 1)
            * found.refused[phrase]
            / found.everywhere[phrase]
        )
        total = share * found.everywhere[phrase]
        alike = min((apart for _, _, apart in nearest), default=1.0)
        value = total * look.purity * share * (1.0 if alike >= _SAME else _ALIKE)
        self.findings.append(
            Finding(phrase, members, look, float(share), (), tuple(nearest), float(value))
        )

    def _name(self, phrase: int, members: np.ndarray) -> int:
        """Returns the phrase that fits a look best; of equal ones the longest.

        It fits by the harmonic mean of two shares: of the members, those that bear it; of all that
        bear it, those that are members.
        """
        bearers, found = self.found.bearers, self.found
        fits = {}
        for other in {phrase, *self._with_images(members)}:
            own = bearers.of(other)
            both = int(np.isin(own, members).sum())
            covered = both / len(members)
            precise = both / len(own) * found.refused[other] / found.everywhere[other]
            fits[other] = 2 * covered * precise / (covered + precise)
        best = max(fits.values())
        equal = [other for other, fit in fits.items() if fit >= _WHOLE * best]
        inside = f" {bearers.text[max(equal, key=lambda other: (fits[other], -other))]} "
        longer = [other for other in equal if inside in f" {bearers.text[other]} "]
        return max(longer, key=lambda other: (bearers.words[other], fits[other], -other))

    def _with_images(self, images: np.ndarray) -> list[int]:
        """Returns the phrases that at least half of some images bear."""
        some = images[:_SOME]
        parts = [self._phrases_of[self._starts[i] : self._starts[i + 1]] for i in some]
        phrases, times = np.unique(np.concatenate(parts), return_counts=True)
        return phrases[times >= len(some) / 2].tolist()

    def _known(self, phrase: int) -> list[int]:
        if phrase not in self._meanings:
            self._meanings[phrase] = self.found.meanings(self.found.bearers.text[phrase])
        return self._meanings[phrase]

    def _nearest_known(
        self, vectors: np.ndarray, mean: np.ndarray
    ) -> list[tuple[int, float, float]]:
        known = self.found.known
        if not known.ids:
            return []
        cosines = self.known_means @ mean
        first = np.argsort(-cosines, kind="stable")[:_NEAREST].tolist()
        return [
            (number, float(cosines[number]), distinct_share(vectors, known.of(number)))
            for number in first
        ]

    def _another_name_of(
        self, phrase: int, members: np.ndarray, vectors: np.ndarray, look: Look
    ) -> int | None:
        """Returns the earlier proposal that these images show under another name, if any.

        A name as frequent as that proposal's is taken for another thing that looks the same: the
        flags of Chad and Romania do.
        """
        best: tuple[bool, float, int] | None = None
        for number, earlier in enumerate(self.findings):
            if float(look.mean @ earlier.look.mean) < earlier.look.least:
                continue
            apart = distinct_share(vectors, self.found.vectors[earlier.images])
            again = phrase == earlier.phrase  # what was left of its own look
            alike = apart < (_KNOWN if again else _SAME)
            rare = again or len(members) < _RARER * len(earlier.images)
            if alike and rare:
                found = (self._are_akin(phrase, earlier.phrase), -apart, number)
                best = found if best is None else max(best, found)
        return None if best is None else best[2]

    def _are_akin(self, phrase: int, other: int) -> bool:
        """Returns whether two phrases begin alike, as Finland and Finnish do."""
        one, two = (self.found.bearers.text[number][:_STEM] for number in (phrase, other))
        return one == two

    def _alias(self, phrase: int, members: np.ndarray, earlier: Finding) -> tuple[int, ...]:
        """Returns the phrase if it names the thing where its name does not stand."""
        text, name = (self.found.bearers.text[number] for number in (phrase, earlier.phrase))
        together = np.isin(members, self.found.bearers.of(earlier.phrase)).mean()
        inside = f" {name} " in f" {text} " or f" {text} " in f" {name} "
        return () if inside or together > 0.5 else (phrase,)
