"""Words that are names of something only in capitals: us and US, il (Italian) and IL, 45 cm and CM.

In: mentions and their candidates. Out: those that are not ruled out by how they are written.

    stop words      function words of English and of the knowledge base's own languages, and the
                    boilerplate of alternative texts, mean only entities whose names are written in
                    capitals
    codes           entities whose names are written in capitals, and have two characters or are a
                    word in some language, are never meant by small letters

Capitals of a word count only if the caption also has small letters; a code that is not a word in
any language (UK) needs only its capitals.
"""

from __future__ import annotations

import numpy as np

from openmofi.kb.index import Candidates
from openmofi.kb.store import KnowledgeBase
from openmofi.link.mentions import Mentions, contains, keys_of
from openmofi.link.stopwords import stop_words, words_anywhere

_LENGTH_OF_CODE = 2


class WordsOrNames:
    """The names of a knowledge base that are also words."""

    def __init__(self, kb: KnowledgeBase):
        self.stopped = keys_of(stop_words(kb.languages), kb.index, kb.hasher)
        """Keys of stop words, sorted."""
        self._words = keys_of(words_anywhere(), kb.index, kb.hasher)

    def may_be_names(self, mentions: Mentions) -> np.ndarray:
        """Returns which mentions may mean something: stop words only with telling capitals."""
        return ~contains(self.stopped, mentions.key) | (mentions.capitals == 2)

    def possible(self, mentions: Mentions, candidates: Candidates) -> np.ndarray:
        """Returns which candidates their mentions may mean."""
        is_upper = candidates.is_upper
        if not (is_upper.any() or mentions.capitals.any()):  # stop words are found in capitals only
            return np.ones(len(candidates), bool)
        stopped = contains(self.stopped, mentions.key)
        is_word = stopped | contains(self._words, mentions.key)
        is_short = mentions.end - mentions.start == _LENGTH_OF_CODE
        is_code = (mentions.num_tokens == 1) & (is_short | is_word)
        told = mentions.capitals >= np.where(is_word, 2, 1)
        if_code, otherwise = ~is_code | told, ~stopped
        return np.where(is_upper, if_code[candidates.item], otherwise[candidates.item])
