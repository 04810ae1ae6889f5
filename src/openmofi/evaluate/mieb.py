"""A model with the interface of `mteb`, for the image benchmarks of MIEB.

    import mteb
    from openmofi.evaluate.mieb import MtebEncoder

    tasks = mteb.get_tasks(tasks=["CIFAR10ZeroShot", "Flickr30kI2TRetrieval"])
    mteb.evaluate(MtebEncoder("run/model"), tasks=tasks)

Needs the extra: pip install 'openmofi[mteb]'.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openmofi.errors import InputError
from openmofi.label.encoder import model_digest
from openmofi.model import load_model


class MtebEncoder:
    """A dual encoder behind mteb's interface (its EncoderProtocol)."""

    def __init__(
        self, model_name: str, revision: str | None = None, *, device: str | None = None, **_: Any
    ):
        try:
            from mteb.models import ModelMeta  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise InputError(
                "MIEB needs the package mteb; install it with: pip install 'openmofi[mteb]'."
            ) from error
        self.model = load_model(model_name, device=device or "auto")
        local = Path(model_name).is_dir()
        # mteb stores its results under this name, which must have two parts.
        name = f"openmofi/{Path(model_name).resolve().parent.name}" if local else model_name
        known = {
            "name": name,
            "revision": revision or model_digest(model_name),
            "modalities": ["image", "text"],
            "embed_dim": self.model.dim,
            "similarity_fn_name": "cosine",
            "framework": ["PyTorch"],
        }
        self.mteb_model_meta = ModelMeta.create_empty(known)

    def encode(self, inputs: Iterable[dict[str, Any]], **_: Any) -> np.ndarray:
        """Returns unit vectors [n, dim] of batches of images, of texts, or the sums of both.

        Args:
            inputs: batches with lists of PIL images under "image", of texts under "text".

        Raises:
            InputError: a batch has neither.
        """
        parts = [self._encode(batch) for batch in inputs]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.dim), np.float32)

    def _encode(self, batch: dict[str, Any]) -> np.ndarray:
        found = []
        if batch.get("image") is not None:
            found.append(self.model.encode_images(list(batch["image"])))
        if batch.get("text") is not None:
            found.append(self.model.encode_texts(list(batch["text"])))
        if not found:
            raise InputError(f"A batch of mteb has {', '.join(batch)}; expected image or text.")
        return found[0] if len(found) == 1 else found[0] + found[1]

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Returns the cosines of all pairs, [n, m]."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Returns the cosine of each pair, [n]."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)


def _unit(vectors: Any) -> torch.Tensor:
    tensor = torch.as_tensor(vectors, dtype=torch.float32)
    tensor = tensor[None] if tensor.ndim == 1 else tensor
    return torch.nn.functional.normalize(tensor, dim=-1)
