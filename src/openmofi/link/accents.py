"""Names that differ in their accents only: Nike and Niké are one name to the matcher.

In: candidates of mentions. Out: their priors, for the accents with which each mention is written.

By Bayes' rule, p(entity | name, accents) is in proportion to p(entity | name) p(accents | entity).
"""

from dataclasses import replace

import numpy as np

from openmofi.kb.index import Candidates
from openmofi.kb.spelling import ACCENTED, PLAIN
from openmofi.link.crawl_priors import normalised
from openmofi.link.mentions import Mentions

_DROPPED, _ADDED = 0.05, 0.001
"""p(accents of the mention | entity) where the entity has no name with these accents: without any,
and with some. Of 25,388 mentions of names without accents in the texts of linking_results.md, 5 had
some. Accents were dropped in 12 of 883 mentions in Wikipedia's captions, and in 17 of 18 in tweets,
news and posts, so the data does not settle the other number. It is set by hand: an exact name wins
unless its entity is far less known."""


def as_written(candidates: Candidates, mentions: Mentions) -> Candidates:
    """Returns candidates with p(entity | name, accents); sums to 1 over a mention's candidates.

    Accents tell candidates apart where only some have a name with those of the mention.
    """
    spelling, item = candidates.spelling, candidates.item
    if (spelling == spelling[:1]).all():
        return candidates
    fits = spelling & np.where(mentions.accented, ACCENTED, PLAIN)[item] != 0
    tells = np.zeros(len(mentions), bool)
    tells[item[fits]] = True
    unlike = tells[item] & ~fits
    if not unlike.any():
        return candidates
    likelihood = np.where(unlike, np.where(mentions.accented, _ADDED, _DROPPED)[item], 1)
    return replace(candidates, prior=normalised(candidates.prior * likelihood, item))
