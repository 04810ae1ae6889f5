"""A byte-pair tokenizer trained on the dataset's own texts: texts -> PreTrainedTokenizerFast.

It lower-cases and works on bytes, so it can encode any text. The special tokens come last, and the
end of text has the very last id, far from 2 (see SpecialTokens).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openmofi.errors import InputError
from openmofi.model.presets import SpecialTokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"
_LEGACY_EOS = 2


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, context_length: int
) -> PreTrainedTokenizerFast:
    """Trains a tokenizer that wraps every text in start and end tokens and pads on the right."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size - 3,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens([PAD, BOS, EOS])
    ids = {token: backend.token_to_id(token) for token in (BOS, EOS)}
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=list(ids.items())
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context_length,
        padding_side="right",
        truncation_side="right",
        add_prefix_space=True,  # transformers 4 sets the backend's from this when it loads
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Returns a trained tokenizer that was saved."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> SpecialTokens:
    """Returns the ids that the text tower's configuration needs."""
    return SpecialTokens(
        vocab_size=len(tokenizer),
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )


def with_end_of_text(tokenizer: Any, text_config: Any, name: str) -> Any:
    """Returns a tokenizer whose texts end with the token at which CLIP's text tower is read.

    The tower is read at the first token equal to its configuration's eos_token_id. Without such a
    token it is read at the first token of all, so that every text gets the same vector. MOFI's
    vocabulary is OPT's. If a directory has vocab.json and merges.txt but no tokenizer.json, OPT's
    tokenizer writes a token at the beginning of a text but none at its end.

    Args:
        tokenizer: the tokenizer as AutoTokenizer loads it.
        text_config: configuration of the text tower. An eos_token_id of 2 means OpenAI's legacy
            configuration, in which the largest id ends a text.
        name: name of the model, for messages.

    Raises:
        InputError: the tokenizer has no such token, or cannot be made to write it.
    """
    wanted, eos = text_config.eos_token_id, tokenizer.eos_token_id
    legacy = wanted == _LEGACY_EOS
    ids = tokenizer("a")["input_ids"]
    if (eos is None or eos in ids) if legacy else wanted in ids:
        return tokenizer
    if eos != wanted and not legacy:
        raise InputError(
            f"{name!r} reads a text at token {wanted}, which its tokenizer never writes (its end "
            f"of text is {eos}); correct text_config.eos_token_id in its config.json."
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"The tokenizer of {name!r} does not end texts with its token {eos}; add a "
            "tokenizer.json whose template does."
        )
    return _ending_in_eos(tokenizer, backend, begins=ids[:1] == [tokenizer.bos_token_id])


def _ending_in_eos(tokenizer: Any, backend: Any, *, begins: bool) -> PreTrainedTokenizerFast:
    """Returns the same tokenizer with a template, in a class that saves the template."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    backend.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos] if begins else ["$A", eos],
        special_tokens=[(token, backend.token_to_id(token)) for token in {bos, eos} - {None}],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        add_prefix_space=bool(getattr(tokenizer, "add_prefix_space", False)),
    )


@dataclass(frozen=True)
class TextInputs:
    """Texts -> input of a text tower, on the CPU."""

    tokenizer: Any
    padding: bool | str
    """True pads to the longest text, max_length to the context."""
    masks: bool
    """Whether the tower gets a mask of the padding."""
    context_length: int
    """Number of tokens that the tower reads; longer texts are cut."""

    def __call__(self, texts: Sequence[str], length: int | None = None) -> dict[str, Tensor]:
        """Returns the ids [n, length] and, unless the tower is causal, their mask.

        Args:
            texts: texts to tokenise.
            length: number of tokens to which every text is padded; by default, that of the longest.
        """
        encoded = self.tokenizer(
            list(texts),
            padding=self.padding if length is None else "max_length",
            truncation=True,
            max_length=length or self.context_length,
            return_tensors="pt",
        )
        names = ("input_ids", "attention_mask") if self.masks else ("input_ids",)
        return {name: encoded[name] for name in names}

    def copy(self) -> TextInputs:
        """Returns a copy for another thread, because a tokenizer keeps state between calls."""
        return replace(self, tokenizer=deepcopy(self.tokenizer))
