"""Captions -> names, by a Hugging Face token classifier; a `link.detectors.MentionDetector`.

Captions that are too long for the model are cut into overlapping windows; every word takes its
label from the window in which it has the most context. A word's label is that of its first token.
Labels in BIO, BILOU or IO form become spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from openmofi.errors import InputError
from openmofi.link.detectors import Detection, detected, texts_of

_BATCH = 32
_LONGEST = 512  # tokens, unless the tokenizer or the model has a lower limit
_OVERLAP = 0.25  # of a window
# RoBERTa counts positions from its padding id + 1, which is 2.
_SHIFTED_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert")


@dataclass(frozen=True)
class Word:
    """A word with its label."""

    start: int
    """Code points of the caption."""
    end: int
    label: str
    score: float
    context: int
    """Number of tokens to the nearer end of its window."""


class TokenClassificationDetector:
    """Finds names with a Hugging Face token classifier: a hub id or a local directory."""

    def __init__(self, model: str, *, device: str = "auto", batch_size: int = _BATCH):
        from openmofi.model.mofi import pick_device

        self._network, self._tokenizer = _load(model)
        self._device = pick_device(device)
        self._network.to(self._device).eval()
        self._batch_size = batch_size
        self._labels = {int(i): label for i, label in self._network.config.id2label.items()}
        config = self._network.config
        positions = getattr(config, "max_position_embeddings", None) or _LONGEST
        if config.model_type in _SHIFTED_POSITIONS:
            positions -= 2
        self._window = int(min(positions, self._tokenizer.model_max_length))

    def detect(self, captions: pa.StringArray, /) -> pa.Table:
        """Returns a table of `link.detectors.DETECTED`; scores are means over a span's words."""
        texts = texts_of(captions)
        found: list[Detection] = []
        for at in range(0, len(texts), self._batch_size):
            for row, words in enumerate(self._words(texts[at : at + self._batch_size]), at):
                found += [(row, *span) for span in spans_of(words)]
        return detected(found)

    def _words(self, texts: list[str]) -> list[list[Word]]:
        """Returns the labelled words of each text, in order."""
        encoded = self._tokenizer(
            texts,
            truncation=True,
            max_length=self._window,
            stride=int(self._window * _OVERLAP),
            padding=True,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        owners = encoded.pop("overflow_to_sample_mapping").tolist()
        offsets = encoded.pop("offset_mapping").tolist()
        labelled = self._classify(encoded)
        best: list[dict[int, Word]] = [{} for _ in texts]
        for window, row in enumerate(owners):
            seen = _words_of_window(encoded.word_ids(window), offsets[window], labelled[window])
            for number, word in seen.items():
                known = best[row].get(number)
                if known is None or known.context < word.context:
                    # Byte-level tokenizers count the spaces around a word as part of it.
                    inner = texts[row][word.start : word.end]
                    start = word.start + len(inner) - len(inner.lstrip())
                    end = max(start, word.start + len(inner.rstrip()))
                    best[row][number] = replace(word, start=start, end=end)
        return [[word for _, word in sorted(words.items())] for words in best]

    def _classify(self, encoded: Any) -> list[list[tuple[str, float]]]:
        """Returns label and probability of every token of every window."""
        import torch

        labelled = []
        with torch.inference_mode():
            for at in range(0, len(encoded["input_ids"]), self._batch_size):
                batch = {
                    name: tensor[at : at + self._batch_size].to(self._device)
                    for name, tensor in encoded.items()
                }
                best = self._network(**batch).logits.float().softmax(-1).max(-1)
                for labels, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                    names = [self._labels[label] for label in labels]
                    labelled.append(list(zip(names, scores, strict=True)))
        return labelled


def _words_of_window(
    numbers: Sequence[int | None],
    offsets: Sequence[tuple[int, int]],
    labelled: Sequence[tuple[str, float]],
) -> dict[int, Word]:
    """Returns the words of one window by their number in the text."""
    places = [at for at, number in enumerate(numbers) if number is not None]
    words: dict[int, Word] = {}
    for at in places:
        number, (start, end) = numbers[at], offsets[at]
        assert number is not None
        context = min(at - places[0], places[-1] - at)
        if number in words:
            word = words[number]
            words[number] = replace(word, end=end, context=min(word.context, context))
        else:
            words[number] = Word(start, end, *labelled[at], context)
    return words


def spans_of(words: Sequence[Word]) -> list[tuple[int, int, str, float]]:
    """Joins labelled words into spans: (start, end, type, mean probability).

    B, S and U begin a span; L, E, S and U end one. I, or a type without a prefix, continues a span
    of its own type, or else begins one.
    """
    spans: list[list[Word]] = []
    open_type = None
    for word in words:
        prefix, kind = _split(word.label)
        if prefix == "O":
            open_type = None
            continue
        if prefix not in ("B", "S", "U") and kind == open_type:
            spans[-1].append(word)
        else:
            spans.append([word])
        open_type = None if prefix in ("L", "E", "S", "U") else kind
    return [
        (
            part[0].start,
            part[-1].end,
            _split(part[0].label)[1],
            sum(word.score for word in part) / len(part),
        )
        for part in spans
        if part[0].start < part[-1].end
    ]


def _split(label: str) -> tuple[str, str]:
    """Returns prefix and type: B and PER for "B-PER", O for "O", I and PER for "PER"."""
    if label.upper() == "O":
        return "O", ""
    prefix, kind = label[:1].upper(), label[2:]
    return (prefix, kind) if label[1:2] in ("-", "_") and prefix in "BILUSE" else ("I", label)


def _load(model: str) -> tuple[Any, Any]:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        network = transformers.AutoModelForTokenClassification.from_pretrained(
            model, dtype=torch.float32
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, ImportError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"Cannot load a token classifier from {model!r}: {first_line}") from error
    if tokenizer is None or not tokenizer.is_fast:
        raise InputError(
            f"{model!r} has a tokenizer without offsets; expected one with a tokenizer.json."
        )
    return network, tokenizer
