"""An image-to-text model, and one shard of its job -> captions of the shard's images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from openmofi import schema
from openmofi.config import CaptionSettings
from openmofi.embed.encode import computing_in_one_thread
from openmofi.embed.places import has_image
from openmofi.embed.shard_embedder import open_rows, result_of_rows
from openmofi.errors import InputError
from openmofi.files.remote import Root
from openmofi.images.look import fetch, look
from openmofi.label.encoder import Encoder, own_device
from openmofi.model.sides import refuse_model
from openmofi.refused import Refused
from openmofi.shards import Shard, ShardResult, tick, worker_number
from openmofi.train.synthetic import CAPTIONS


class Captioner:
    """Any image-to-text model of Hugging Face that needs no instruction, such as BLIP or GIT."""

    def __init__(self, model: str, *, device: str = "auto"):
        """Loads a directory or hub id.

        Raises:
            InputError: it is not such a model.
        """
        check_captions(model)
        self._processor = _processor(model)
        try:
            self._network = AutoModelForImageTextToText.from_pretrained(model).eval()
        except (OSError, ValueError, ImportError) as error:
            refuse_model(model, error)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network.to(device)

    def __call__(self, images: list[Image.Image], settings: CaptionSettings) -> list[list[str]]:
        """Returns the best captions of each image by beam search, without empty and equal ones."""
        inputs = self._processor(images=images, return_tensors="pt").to(self._network.device)
        beams = {"num_beams": settings.captions, "num_return_sequences": settings.captions}
        with torch.inference_mode():
            tokens = self._network.generate(
                **inputs, **beams, do_sample=False, max_new_tokens=settings.max_tokens
            )
        texts = [t.strip() for t in self._processor.batch_decode(tokens, skip_special_tokens=True)]
        starts = range(0, len(texts), settings.captions)
        lists = [texts[start : start + settings.captions] for start in starts]
        return [[text for text in dict.fromkeys(found) if text] for found in lists]


def check_captions(model: str) -> None:
    """Checks that a model writes captions of images, without loading it.

    Raises:
        InputError: it does not, or needs to be asked in a chat.
    """
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        refuse_model(model, error)
    advice = "pass an image-to-text model such as Salesforce/blip-image-captioning-base."
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise InputError(f"{model!r} does not write texts of images; {advice}")
    processor = _processor(model)
    parts = processor, getattr(processor, "tokenizer", None)
    if any(getattr(part, "chat_template", None) for part in parts):
        raise InputError(f"{model!r} has to be asked in a chat; {advice}")


def _processor(model: str) -> Any:
    try:
        return AutoProcessor.from_pretrained(model)
    except (OSError, ValueError, ImportError) as error:
        refuse_model(model, error)


@dataclass(frozen=True)
class CaptionJob:
    """Everything a worker process needs to caption a shard; small and picklable."""

    root: Root
    selection: Path | None
    """The selection whose images get captions; None: all of the input."""
    model: str
    settings: CaptionSettings


class ShardCaptioner:
    """Captions shards; keeps the model between them."""

    def __init__(self, job: CaptionJob, *, workers: int = 1, encoder: Encoder | None = None):
        assert encoder is None
        self.job = job
        device = own_device(job.settings.device, worker_number())
        self._captioner = Captioner(job.model, device=device)

    def __call__(self, shard: Shard) -> ShardResult:
        """Returns a row of schema.CAPTIONS per readable image of the shard, in input order.

        Raises:
            InputError: the shard as a whole does not have the format of its suffix.
            OSError: the shard has vanished.
        """
        with ExitStack() as opened:
            rows, read, damage = open_rows(self.job.root, self.job.selection, shard, opened)
            reasons, found = rows["error"].to_pylist(), {}
            usable = np.flatnonzero(has_image(rows).to_numpy(zero_copy_only=False)).tolist()
            tick(len(rows) - len(usable))
            each = self.job.settings.batch_size
            for start in range(0, len(usable), each):
                batch = usable[start : start + each]
                images: dict[int, Image.Image] = {}
                for row in batch:
                    image = _decode(read, row)
                    if isinstance(image, Refused):
                        reasons[row] = image.reason
                    else:
                        images[row] = image
                if images:
                    found |= self._caption(images)
                tick(len(batch))
        written = rows.take(pa.array(list(found), pa.int64())).select(schema.CAPTIONS.names[:-1])
        lists = pa.array(list(found.values()), pa.list_(pa.string()))
        table = written.append_column("synthetic", lists).cast(schema.CAPTIONS)
        about = {"selection": self.job.selection, "damage": damage, "folder": CAPTIONS}
        return result_of_rows(rows, list(found), reasons, table, **about)

    def _caption(self, images: dict[int, Image.Image]) -> dict[int, list[str]]:
        """Returns the captions of each row, computed in one thread on a CPU."""
        with computing_in_one_thread():
            texts = self._captioner(list(images.values()), self.job.settings)
        return dict(zip(images, texts, strict=True))


def _decode(read: Callable[[int], bytes], row: int) -> Image.Image | Refused:
    data = fetch(read, row)
    if isinstance(data, Refused):
        return data
    seen = look(data, None, keep_image=True)
    if isinstance(seen, Refused):
        return seen
    assert seen.image is not None
    return seen.image
