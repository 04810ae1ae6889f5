"""What labelling needs of an encoder, in this process or behind a Ray actor."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from openmofi.model.transform import Transform


_OF_A_MODEL = (".json", ".safetensors", ".bin", ".txt", ".pt", ".onnx")
"""Suffixes of a model's files."""
_CARDS = ("compile.json",)
"""Files that only say how a model was made, and how fast it was."""
_DECODE_THREADS = 8
"""Most threads that decode images for one GPU."""


class Encoder(Protocol):
    """Images and texts -> unit vectors; `model.MofiModel` is one."""

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    transform: Transform

    def encode_pixels(self, pixels: np.ndarray, /) -> np.ndarray:
        """Returns vectors of uint8 pixels [n, size, size, 3]."""
        ...

    def encode_pixels_alone(self, pixels: np.ndarray, at_once: int, /) -> np.ndarray:
        """Returns vectors of pixels that do not depend on the rest of the batch."""
        ...

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Returns vectors of texts."""
        ...

    def encode_texts_alone(self, texts: Sequence[str], /) -> np.ndarray:
        """Returns vectors of texts that do not depend on the rest of the batch."""
        ...


def load_encoder(
    model: str,
    *,
    device: str,
    precision: str,
    number: int,
    workers: int,
    texts_alone: bool = False,
) -> Encoder:
    """Loads the encoder of one of several processes on this machine.

    Args:
        model: hub id or directory.
        device: auto and cuda share out the GPUs.
        precision: see `config.LabelSettings`.
        number: number of this process, from 0.
        workers: number of processes.
        texts_alone: whether no image will come, so that a text encoder will do.
    """
    from openmofi.model import load_model, load_text_encoder

    device = own_device(device, number)
    share_cores(workers)
    load = load_text_encoder if texts_alone else load_model
    return load(model, device=device, precision=precision)


def own_device(device: str, number: int) -> str:
    """Returns the device of one of several processes: with several GPUs, each has its own.

    Args:
        device: auto, cpu, cuda or cuda:N.
        number: number of the process, from 0.
    """
    import torch

    gpus = torch.cuda.device_count()
    return f"cuda:{number % gpus}" if device in ("auto", "cuda") and gpus > 1 else device


def share_cores(workers: int) -> None:
    """Limits the threads of one of several processes, which would compete for the cores."""
    import torch

    if workers > 1 and multiprocessing.parent_process() is not None:  # that keeps its own setting
        torch.set_num_threads(max(1, cores() // workers))


def decode_threads(encoder: Any, workers: int) -> int:
    """Returns how many threads decode images for an encoder: 1 if it keeps the cores busy itself.

    Args:
        encoder: the encoder, or None.
        workers: number of processes that share the machine.
    """
    device = getattr(encoder, "device", None)
    if device is None or device.type == "cpu":
        return 1
    return max(1, min(_DECODE_THREADS, cores() // workers))


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(models: Sequence[str], device: str, threads: int = 1) -> int:
    """Returns one process per GPU, or without a GPU enough for all cores, as far as memory allows.

    Args:
        models: those that every process holds; without any, no GPU is used.
        device: see `config.JobSettings`.
        threads: cores that a process keeps busy.
    """
    wanted = -(-cores() // threads)
    if not models:
        return wanted
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    files = [
        file
        for model in models
        for file in (Path(model), *Path(model).glob("*"))
        if file.suffix in (".safetensors", ".bin", ".onnx", ".pt") and file.is_file()
    ]
    each = 2 * sum(file.stat().st_size for file in files) + 1_000_000_000
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(wanted, int(free * 0.8 / each)))


def model_digest(model: str | None) -> str:
    """Returns what identifies a model: a hash of its files, or the hub's revision."""
    if model is None:
        return ""
    folder = Path(model)
    if folder.is_file():
        with folder.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if not folder.is_dir():
        from openmofi.model.checkpoint import hub_revision

        return hub_revision(model) or hashlib.sha256(model.encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    # sentence-transformers keeps a file for each of its modules in a folder.
    has_modules = (folder / "modules.json").is_file()
    for path in sorted(folder.rglob("*") if has_modules else folder.iterdir()):
        if path.is_file() and path.suffix in _OF_A_MODEL and path.name not in _CARDS:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class RemoteEncoder:
    """An encoder behind Ray actors; each process of a job always uses the same one."""

    def __init__(self, actors: list[Any], dim: int, transform: Transform):
        self._actors, self._dim, self.transform = actors, dim, transform

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._dim

    def encode_pixels(self, pixels: np.ndarray, /) -> np.ndarray:
        """Returns vectors of uint8 pixels [n, size, size, 3]."""
        return self._call("encode_pixels", pixels)

    def encode_pixels_alone(self, pixels: np.ndarray, at_once: int, /) -> np.ndarray:
        """Returns vectors of pixels that do not depend on the rest of the batch."""
        return self._call("encode_pixels_alone", pixels, at_once)

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Returns vectors of texts."""
        return self._call("encode_texts", list(texts))

    def encode_texts_alone(self, texts: Sequence[str], /) -> np.ndarray:
        """Returns vectors of texts that do not depend on the rest of the batch."""
        return self._call("encode_texts_alone", list(texts))

    def _call(self, name: str, *arguments: Any) -> np.ndarray:
        import ray

        actor = self._actors[os.getpid() % len(self._actors)]
        return ray.get(actor.encode.remote(name, *arguments))


def start_encoders(
    model: str, *, device: str, precision: str, count: int, share: float = 1.0
) -> RemoteEncoder:
    """Starts Ray actors that hold the encoder; Ray restarts a lost one.

    Args:
        model: hub id or directory that every node can read.
        device: auto takes a GPU for each actor if the cluster has any.
        precision: see `config.LabelSettings`.
        count: number of actors.
        share: of a GPU and a processor that each one takes.
    """
    import ray

    gpus = share if ray.cluster_resources().get("GPU", 0) and device != "cpu" else 0
    options = {"num_gpus": gpus, "num_cpus": share, "max_restarts": -1, "max_task_retries": -1}
    actor: Any = ray.remote(EncoderActor)
    actor = actor.options(**options)
    actors = [actor.remote(model, device, precision) for _ in range(count)]
    return RemoteEncoder(actors, *ray.get(actors[0].describe.remote()))


class EncoderActor:
    """The encoder in its own process, to which Ray assigns the GPU."""

    def __init__(self, model: str, device: str, precision: str):
        self._encoder = load_encoder(model, device=device, precision=precision, number=0, workers=1)

    def describe(self) -> tuple[int, Transform]:
        """Returns (length of the vectors, transform of images)."""
        return self._encoder.dim, self._encoder.transform

    def encode(self, name: str, *arguments: Any) -> np.ndarray:
        """Calls one of the encoder's methods."""
        return getattr(self._encoder, name)(*arguments)
