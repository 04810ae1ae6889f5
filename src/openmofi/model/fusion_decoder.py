"""Fusion Entity Decoding (arXiv 2404.01626): spells the title of the entity that a mention means.

    each candidate: caption with <s1> mention <e1>, then title and description -> encoder
    all candidates' encodings, one after the other -> decoder -> the title

Any encoder-decoder of Hugging Face will do. The decoder may only spell titles of the mention's
candidates, so instead of a search, every title's probability is computed; where two titles are
equal, their ids tell them apart. It does not judge NIL, whose probability stays the linear score's.

In tensors: B mentions, K candidates, L tokens of a passage, T tokens of a title, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from openmofi.errors import InputError
from openmofi.kb.store import KnowledgeBase
from openmofi.link.fusion import CandidateTexts, HardMentions, texts_of
from openmofi.link.weights import LinkWeights
from openmofi.model.fusion_files import damaged, read_card, write_card
from openmofi.model.mofi import pick_device

KIND, VERSION = "decoder", 2
"""Raise the version whenever the passages or the titles change."""
_MARKS = ("<s1>", "<e1>")
_ROOM, _DESCRIBED = 300, 300
"""Characters that are read of a caption on either side of the mention, and of a candidate. Where
that is too much for the encoder, less of the caption."""
_PASSAGE, _TITLE = 192, 32
"""Most tokens."""
_IGNORED = -100


class FusionDecoder:
    """An encoder-decoder and its tokenizer, which knows the marks of a mention."""

    def __init__(self, network: Any, tokenizer: Any):
        """Takes both; adds the marks to the vocabulary if they are new."""
        self.network, self.tokenizer = network, tokenizer
        if tokenizer.add_special_tokens({"additional_special_tokens": list(_MARKS)}):
            network.resize_token_embeddings(len(tokenizer))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.device

    def encode(
        self, passages: Sequence[Sequence[str]]
    ) -> tuple[Float[Tensor, "b kl d"], Int[Tensor, "b kl"]]:
        """Returns the encodings of each mention's passages, one after the other, and their mask."""
        most = max(map(len, passages))
        flat = [text for own in passages for text in [*own, *[""] * (most - len(own))]]
        inputs = self.tokenizer(
            flat, padding=True, truncation=True, max_length=self.most_tokens, return_tensors="pt"
        ).to(self.device)
        mask = inputs["attention_mask"].view(len(passages), most, -1)
        for number, own in enumerate(passages):
            mask[number, len(own) :] = 0
        encoder = self.network.get_encoder()
        # A passage of padding alone would have nothing to attend to.
        shown = inputs["attention_mask"].clone()
        shown[:, 0] = 1
        states = encoder(input_ids=inputs["input_ids"], attention_mask=shown).last_hidden_state
        return states.view(len(passages), -1, states.shape[-1]), mask.reshape(len(passages), -1)

    def log_probability(
        self,
        states_BSD: Float[Tensor, "b s d"],
        mask_BS: Int[Tensor, "b s"],
        titles: Sequence[str],
    ) -> Float[Tensor, " b"]:
        """Returns log p(title | encodings), one title per row, by forced decoding."""
        from transformers.modeling_outputs import BaseModelOutput

        inputs = self.tokenizer(
            text_target=list(titles),
            padding=True,
            truncation=True,
            max_length=_TITLE,
            return_tensors="pt",
        ).to(self.device)
        labels_BT = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, _IGNORED)
        encoded = BaseModelOutput(last_hidden_state=states_BSD)
        output = self.network(encoder_outputs=encoded, attention_mask=mask_BS, labels=labels_BT)
        log_p = output.logits.log_softmax(-1)
        spelt = labels_BT != _IGNORED
        own = log_p.gather(-1, labels_BT.clamp(min=0)[..., None])[..., 0]
        return (own * spelt).sum(1)

    def log_shares(self, passages: Sequence[str], titles: Sequence[str]) -> Float[Tensor, " k"]:
        """Returns log p(candidate) of one mention, among its candidates."""
        states, mask = self.encode([passages])
        count = len(titles)
        spelt = self.log_probability(states.expand(count, -1, -1), mask.expand(count, -1), titles)
        return spelt.log_softmax(0)

    def passages_of(
        self, mentions: HardMentions, texts: CandidateTexts
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Returns what the encoder reads of each mention's candidates, and their titles.

        Args:
            mentions: with positions in `texts` for entities.
            texts: of the candidates.
        """
        passages, titles = [], []
        begin = mentions.begin
        spans = zip(mentions.texts, mentions.start.tolist(), mentions.end.tolist(), strict=True)
        for number, span in enumerate(spans):
            own = mentions.entity[begin[number] : begin[number + 1]].tolist()
            passages.append(self._fitting(*span, [texts.described[i][:_DESCRIBED] for i in own]))
            shared = Counter(texts.labels[i] for i in own)
            titles.append(
                [
                    f"{label} ({texts.ids[i]})" if shared[label] > 1 else label
                    for i, label in ((i, texts.labels[i]) for i in own)
                ]
            )
        return passages, titles

    def _fitting(self, text: str, start: int, end: int, described: list[str]) -> list[str]:
        """Returns the passages of a mention, with as much of the caption as the encoder reads."""
        room = _ROOM
        while True:
            before, after = text[max(0, start - room) : start], text[end : end + room]
            marked = f"{before}{_MARKS[0]} {text[start:end]} {_MARKS[1]}{after}"
            passages = [f"{marked} {words}" for words in described]
            lengths = map(len, self.tokenizer(passages)["input_ids"])
            if not room or max(lengths) <= self.most_tokens:
                return passages
            room //= 2

    @property
    def most_tokens(self) -> int:
        """Number of tokens of a passage that are read."""
        return min(_PASSAGE, self.tokenizer.model_max_length)


class DecoderReader:
    """A trained decoder, with the texts of a knowledge base's entities."""

    def __init__(
        self, decoder: FusionDecoder, kb: KnowledgeBase, weights: LinkWeights, scale: float = 1.0
    ):
        """Takes the network, the entities, the linear score's weights, and how far to follow it."""
        self.decoder, self.kb, self._weights, self._scale = decoder, kb, weights, scale
        decoder.network.eval()

    @property
    def weights(self) -> LinkWeights:
        """The weights of the linear score, which decides about NIL."""
        return self._weights

    @torch.inference_mode()
    def read(self, mentions: HardMentions) -> Float[np.ndarray, " c"]:
        """Returns what to add to each candidate's logit, float64; NIL keeps its probability."""
        known, place = np.unique(mentions.entity, return_inverse=True)
        numbered = HardMentions(
            mentions.texts, mentions.start, mentions.end, mentions.item, place, mentions.features
        )
        passages, titles = self.decoder.passages_of(numbered, texts_of(self.kb, known))
        added = np.zeros(len(mentions.item))
        begin = mentions.begin
        for number, (own, names) in enumerate(zip(passages, titles, strict=True)):
            here = slice(begin[number], begin[number + 1])
            linear = mentions.features[here, -1].astype(np.float64)
            share = self.decoder.log_shares(own, names).double().cpu().numpy()
            mixed = self._scale * share + (1 - self._scale) * linear
            nil_stays = np.logaddexp.reduce(linear) - np.logaddexp.reduce(mixed)
            added[here] = mixed + nil_stays - linear
        return added


def save_decoder(
    folder: Path, decoder: FusionDecoder, weights: LinkWeights, card: dict[str, Any]
) -> None:
    """Writes a decoder as a directory of Hugging Face; see `fusion_files.write_card`."""
    decoder.network.save_pretrained(folder)
    decoder.tokenizer.save_pretrained(folder)
    write_card(folder, KIND, VERSION, weights, card)


def load_decoder(folder: Path, *, device: str = "auto") -> tuple[FusionDecoder, LinkWeights, float]:
    """Returns a trained decoder, the weights of the linear score, and the scale of what it adds.

    Raises:
        InputError: the folder does not hold a decoder of this version, or is damaged.
    """
    card, weights = read_card(folder, KIND, VERSION)
    try:
        decoder = load_encoder_decoder(str(folder), device=device)
    except InputError as error:
        raise damaged(folder / "model.safetensors", str(error)) from None
    return decoder, weights, card["scale"]


def load_encoder_decoder(name: str, *, device: str = "auto") -> FusionDecoder:
    """Loads an encoder-decoder from a directory or the hub.

    Raises:
        InputError: there is none.
    """
    import transformers

    from openmofi.model.sides import no_load_report

    try:
        with no_load_report():
            network, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{name!r} cannot be loaded as an encoder-decoder: {why}") from None
    if lacks := sorted(info["missing_keys"]):
        raise InputError(
            f"{name!r} lacks weights of its {type(network).__name__}, such as {lacks[0]}; pass a "
            "complete encoder-decoder, or a text encoder for a pointer."
        )
    return FusionDecoder(network.to(pick_device(device)), tokenizer)
