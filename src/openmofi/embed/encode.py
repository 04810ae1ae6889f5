"""Images -> vectors, batch by batch, the same to the last bit however many threads take part.

The last bits of a sum change with the number of threads that share it. So a batch is computed in
one thread, and several batches at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from openmofi.embed.places import Places
from openmofi.images.look import decode
from openmofi.label.encoder import Encoder, decode_threads, own_device, share_cores
from openmofi.model import MofiModel, load_model
from openmofi.pairs import ImageReader
from openmofi.refused import Refused
from openmofi.shards import worker_number

_CHUNK = 256
_CPU_BATCH = 64
"""Images of a batch on a CPU, where larger ones gain nothing and keep threads waiting."""


EncodePixels = Callable[[np.ndarray, list[int]], np.ndarray]
"""(uint8 pixels [n, size, size, 3], their rows) -> vectors [n, ...]."""


@dataclass(frozen=True)
class EncodedBatch:
    """The vectors of a batch of rows."""

    rows: list[int]
    """The rows with a readable image."""
    vectors: Float[np.ndarray, "n ..."]
    refused: dict[int, str]
    """The reasons of the other rows."""


def encode_rows(
    encoder: Encoder,
    rows: Sequence[int],
    read: Callable[[Any], bytes],
    *,
    batch_size: int = _CHUNK,
    workers: int = 1,
    encode_pixels: EncodePixels | None = None,
) -> Iterator[EncodedBatch]:
    """Yields the vectors of the images of some rows, in order.

    Args:
        encoder: what encodes them.
        rows: numbers of rows.
        read: returns the encoded bytes of a row's image, called from several threads.
        batch_size: rows of a batch; on a CPU at most 64.
        workers: number of processes that share the machine.
        encode_pixels: makes what is yielded as vectors, from several threads; by default the
            encoder alone.
    """

    def encode(batch: Sequence[int]) -> EncodedBatch:
        pixels, good, refused = [], [], {}
        for row in batch:
            decoded = decode(read, row, encoder.transform)
            if isinstance(decoded, Refused):
                refused[row] = decoded.reason
            else:
                pixels.append(decoded[0])
                good.append(row)
        if not good:
            return EncodedBatch([], np.zeros((0, encoder.dim), np.float32), refused)
        if encode_pixels is not None:
            return EncodedBatch(good, encode_pixels(np.stack(pixels), good), refused)
        return EncodedBatch(good, encoder.encode_pixels(np.stack(pixels)), refused)

    device = getattr(encoder, "device", None)
    on_gpu = device is not None and device.type != "cpu"
    size = batch_size if on_gpu else min(batch_size, _CPU_BATCH)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    with computing_in_one_thread() as threads:
        if on_gpu:
            threads = decode_threads(encoder, workers)
        if min(threads, len(batches)) <= 1:
            yield from map(encode, batches)
            return
        with ThreadPoolExecutor(threads) as pool:
            ahead = deque()
            for batch in batches:
                ahead.append(pool.submit(encode, batch))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            for future in ahead:
                yield future.result()


def load_job_encoder(model: str, *, device: str, precision: str, workers: int) -> MofiModel:
    """Loads the encoder of one of a job's processes on this machine.

    Args:
        model: hub id or directory.
        device: auto and cuda share out the GPUs.
        precision: arithmetic of the encoder.
        workers: number of processes.
    """
    share_cores(workers)
    with computing_in_one_thread():  # an ONNX session keeps the number that it is opened with
        return load_model(model, device=own_device(device, worker_number()), precision=precision)


@contextmanager
def computing_in_one_thread() -> Iterator[int]:
    """Lets each thread of this process compute alone; yields how many would share the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def encode_places(
    encoder: Encoder, places: Places
) -> Iterator[tuple[pa.Table, np.ndarray, Counter[str]]]:
    """Yields (rows that could be read, their vectors [n, dim], the others by reason).

    The rows have a further column `place`: their number in places.table.
    """
    numbers = pa.array(np.arange(len(places.table)), pa.int64())
    table = places.table.append_column("place", numbers)
    read = place_reader(ImageReader(places.root), table)
    for batch in encode_rows(encoder, range(len(table)), read):
        yield table.take(pa.array(batch.rows, pa.int64())), batch.vectors, _reasons(batch)


def place_reader(reader: ImageReader, table: pa.Table) -> Callable[[int], bytes]:
    """Returns a function that reads the encoded image of a row of a table of places."""
    places = table.select(["shard", "path", "offset", "size"])
    return lambda row: reader.read(places.slice(row, 1).to_pylist()[0])


def missing_images(reasons: Mapping[str, int]) -> str | None:
    """Returns why the shard of a selection is only partial, if images are missing.

    They were there when they were selected, and may come back.
    """
    count = reasons.get("image_missing", 0)
    return f"{count:,} {'image is' if count == 1 else 'images are'} missing" if count else None


def _reasons(batch: EncodedBatch) -> Counter[str]:
    return Counter(batch.refused.values())
