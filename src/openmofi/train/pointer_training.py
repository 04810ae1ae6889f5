"""How a pointer learns: its loss on examples, and the step sizes of its parts.

In: `MentionExamples` and a text encoder. Out: losses and logits of mentions, for fusion.py's loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from openmofi.config import FusionSettings
from openmofi.errors import InputError, SettingsError
from openmofi.link.weights import LinkWeights
from openmofi.model import load_text_encoder
from openmofi.model.pointer import (
    Pointer,
    PointerShape,
    candidate_arrays,
    keep_layers,
    most_tokens,
    save_pointer,
    tokenise_mentions,
)
from openmofi.progress import progress
from openmofi.train.fusion_examples import MentionExamples

_TEXTS_AT_ONCE, _MENTIONS_AT_ONCE = 1024, 256
_NEW, _CLOSENESS = 10, 40
"""Step size of new layers, and of the weight of closeness, relative to the text encoder's."""
_DECAY = 0.01
_PENALTY = 1e-3
"""On the squared corrections of the linear terms, per mention."""
_MOST_ITERATIONS = 60


class PointerTraining:
    """A pointer that learns."""

    def __init__(
        self,
        encoder: str,
        texts: Sequence[str],
        settings: FusionSettings,
        device: torch.device,
    ):
        """Makes a pointer that adds nothing, and encodes the candidates.

        Args:
            encoder: directory or hub id of the text encoder to start from.
            texts: those of all candidates, `described`.
            settings: shape of the network.
            device: where it learns.

        Raises:
            InputError: the encoder's tokenizer does not tell places.
            SettingsError: the heads do not divide the encoder's width, or it has fewer layers than
                the settings keep.
        """
        shape = PointerShape(settings.layers, settings.heads, settings.dropout)
        self.entities = load_text_encoder(encoder, device=str(device))
        self.device, self.tokenizer = device, self.entities.tokenizer
        if self.entities.dim % settings.heads:
            raise SettingsError(
                f"Setting 'heads' cannot be {settings.heads}; expected a divisor of "
                f"{self.entities.dim}, the width of {encoder!r}."
            )
        if not self.tokenizer.is_fast:
            raise InputError(
                f"The tokenizer of {encoder!r} does not tell where its tokens stand in the text; "
                "expected a text encoder with a tokenizer.json."
            )
        captions = load_text_encoder(encoder, device=str(device))
        if settings.text_layers:
            keep_layers(captions.network.text_model, settings.text_layers)
        self.network = Pointer(captions, shape).to(device)
        self._vectors_ND = self._encoded(texts)

    def groups(self) -> list[tuple[list[Tensor], float, float]]:
        """Returns parameters, their relative step size and their weight decay."""
        named = list(self.network.named_parameters())
        encoder: list[Tensor] = [p for name, p in named if name.startswith("encoder.")]
        others: list[Tensor] = [
            p for name, p in named if not name.startswith("encoder.") and name != "closeness"
        ]
        closeness: list[Tensor] = [self.network.closeness]
        return [(encoder, 1, _DECAY), (others, _NEW, _DECAY), (closeness, _CLOSENESS, 0.0)]

    def begin(self, examples: MentionExamples) -> None:
        """Fits how much closeness counts, and corrections of the linear terms: a convex problem.

        The networks learn from there, and need not find it first.

        Args:
            examples: those to learn from.
        """
        parts = []
        self.network.eval()
        rows = np.arange(len(examples))
        with torch.no_grad(), progress("begin", total=len(rows), unit="mentions") as bar:
            for at in range(0, len(rows), _MENTIONS_AT_ONCE):
                some = examples.some(rows[at : at + _MENTIONS_AT_ONCE])
                caption, mention, entity, features, offered = self._told(some)
                closeness = self.network.closeness_of(caption, mention, entity, offered)
                terms = torch.cat([features, closeness[..., None]], -1).double()
                linear, *rest = self._truth(some)
                parts.append((terms, linear.double(), *rest))
                bar.advance(len(some))
        weights = torch.zeros(parts[0][0].shape[-1], dtype=torch.float64, device=self.device)
        weights.requires_grad_()
        solver = torch.optim.LBFGS(
            [weights], max_iter=_MOST_ITERATIONS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            total = _PENALTY * (weights[:-1] ** 2).sum()
            for terms, linear, *rest in parts:
                of_part = listwise_loss(linear + terms @ weights, linear, *rest)
                total = total + of_part.sum() / len(examples)
            total.backward()
            return total

        solver.step(loss)
        with torch.no_grad():
            self.network.linear.weight.copy_(weights[None, :-1])
            self.network.closeness.copy_(weights[-1])

    def loss(self, examples: MentionExamples) -> Float[Tensor, " b"]:
        """Returns the loss of each mention."""
        linear_BK, *rest = self._truth(examples)
        logit_BK = linear_BK + self.network(*self._told(examples))
        return listwise_loss(logit_BK, linear_BK, *rest)

    def logits(self, examples: MentionExamples) -> Float[Tensor, "b k"]:
        """Returns logits relative to NIL; what stands where no candidate is does not matter."""
        linear_BK, *_ = self._truth(examples)
        return linear_BK + self.network(*self._told(examples))

    def _truth(self, examples: MentionExamples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns linear logits, what is meant, what is offered, and where NIL is annotated."""
        linear, offered = examples.padded(examples.logit.astype(np.float32), 0.0)
        target, _ = examples.padded(examples.target.astype(np.float32), 0.0)
        arrays = (linear, target, offered, examples.knows_nil)
        linear, target, offered, knows_nil = (torch.from_numpy(a).to(self.device) for a in arrays)
        return linear, target, offered, knows_nil

    def _told(self, examples: MentionExamples) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Returns the arguments of the network."""
        device, mentions = self.device, examples.mentions
        width = int(np.diff(examples.begin).max())
        places, features, offered = candidate_arrays(mentions, np.arange(len(mentions)), width)
        entity = self._vectors_ND[mentions.entity[places]].astype(np.float32)
        read = tokenise_mentions(self.tokenizer, mentions, most=most_tokens(self.entities))
        caption, mention = self.network.encode_mentions(*(a.to(device) for a in read.arrays))
        vectors, terms, is_offered = (
            torch.from_numpy(array).to(device) for array in (entity, features, offered)
        )
        return caption, mention, vectors, terms, is_offered

    def _encoded(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Returns unit vectors of texts, as fp16, in which they will be stored."""
        parts = [np.zeros((0, self.entities.dim), np.float16)]
        with progress("encode candidates", total=len(texts), unit="texts") as bar:
            for at in range(0, len(texts), _TEXTS_AT_ONCE):
                part = list(texts[at : at + _TEXTS_AT_ONCE])
                parts.append(self.entities.encode_texts_alone(part).astype(np.float16))
                bar.advance(len(part))
        return np.concatenate(parts)

    def card(self, figures: str) -> str:
        """Returns README.md."""
        return f"""---
library_name: sentence-transformers
tags: [openmofi, entity-linking]
---
# A pointer for hard mentions

Reads a mention with all its candidates and points at one, or at none (openmofi docs/fusion.md). The
text encoder of captions loads with sentence-transformers.
{figures}"""

    def save(self, folder: Path, weights: LinkWeights, card: dict[str, Any]) -> None:
        """Writes the pointer; see `save_pointer`."""
        save_pointer(folder, self.network, self.entities, weights, card)


def listwise_loss(
    logit_BK: Float[Tensor, "b k"],
    linear_BK: Float[Tensor, "b k"],
    target_BK: Float[Tensor, "b k"],
    offered_BK: Bool[Tensor, "b k"],
    knows_nil_B: Bool[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Returns the loss of each mention.

    Where NIL is annotated: the cross entropy of truth and p, NIL among the candidates. Elsewhere:
    that given that NIL is not meant, and how far p(NIL) is from the linear score's, KL(linear ||
    read).

    Args:
        logit_BK: of the candidates, relative to NIL.
        linear_BK: the same by the linear score.
        target_BK: probability that each is meant; they sum to 1, or to 0 where NIL is meant.
        offered_BK: where there is a candidate.
        knows_nil_B: whether NIL is annotated.
    """
    least = torch.finfo(logit_BK.dtype).min / 4

    any_B, before_B = (
        values_BK.masked_fill(~offered_BK, least).logsumexp(1)
        for values_BK in (logit_BK, linear_BK)
    )
    own_B = (target_BK * logit_BK).sum(1)
    with_nil_B = F.softplus(any_B) - own_B
    # Of p(NIL) = sigmoid(-any): cross entropy less the linear score's own entropy.
    not_nil_B = before_B.sigmoid()
    kept_B = F.binary_cross_entropy_with_logits(any_B, not_nil_B, reduction="none")
    kept_B = kept_B - F.binary_cross_entropy_with_logits(before_B, not_nil_B, reduction="none")
    return torch.where(knows_nil_B, with_nil_B, any_B - own_B + kept_B)
