"""How a fusion decoder learns: cross entropy on the title of the entity that is meant.

In: examples and an encoder-decoder. Out: losses and logits of mentions, for the loop of fusion.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openmofi.link.weights import LinkWeights
from openmofi.model.fusion_decoder import FusionDecoder, save_decoder
from openmofi.train.fusion_examples import MentionExamples

_DECAY = 0.01


class DecoderTraining:
    """A decoder that learns."""

    def __init__(self, decoder: FusionDecoder, device: torch.device):
        """Takes the encoder-decoder to start from, and where it learns."""
        self.decoder, self.device = decoder, device
        self.network = decoder.network.to(device)

    def groups(self) -> list[tuple[list[Tensor], float, float]]:
        """Returns parameters, their relative step size and their weight decay."""
        return [(list(self.network.parameters()), 1, _DECAY)]

    def begin(self, examples: MentionExamples) -> None:
        """Does nothing: an encoder-decoder begins as it is."""

    def loss(self, examples: MentionExamples) -> Float[Tensor, " b"]:
        """Returns -log p(title) of what each mention most probably means; 0 where it means NIL."""
        target, _ = examples.padded(examples.target, 0.0)
        rows = np.flatnonzero(target.any(1))
        loss = torch.zeros(len(examples), device=self.device)
        if not len(rows):
            return loss
        passages, titles = self.decoder.passages_of(examples.mentions, examples.texts)
        states, mask = self.decoder.encode([passages[row] for row in rows])
        wanted = [titles[row][int(target[row].argmax())] for row in rows.tolist()]
        log_p = self.decoder.log_probability(states, mask, wanted)
        return loss.index_copy(0, torch.from_numpy(rows).to(self.device), -log_p)

    def logits(self, examples: MentionExamples) -> Float[Tensor, "b k"]:
        """Returns logits relative to NIL, which keeps its probability by the linear score."""
        linear, offered = examples.padded(examples.logit.astype(np.float32), -np.inf)
        found = torch.full(linear.shape, -torch.inf, device=self.device)
        any_B = torch.from_numpy(np.logaddexp.reduce(linear, axis=1)).to(self.device)
        passages, titles = self.decoder.passages_of(examples.mentions, examples.texts)
        for row, (own, names) in enumerate(zip(passages, titles, strict=True)):
            found[row, : int(offered[row].sum())] = self.decoder.log_shares(own, names) + any_B[row]
        return found

    def card(self, figures: str) -> str:
        """Returns README.md."""
        return f"""---
library_name: transformers
tags: [openmofi, entity-linking]
---
# A fusion entity decoder

Reads a mention with all its candidates and spells the title of one (arXiv 2404.01626).
{figures}"""

    def save(self, folder: Path, weights: LinkWeights, card: dict[str, Any]) -> None:
        """Writes the decoder; see `save_decoder`."""
        save_decoder(folder, self.decoder, weights, card)
