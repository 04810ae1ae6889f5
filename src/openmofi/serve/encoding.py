"""One thread that owns the encoder and batches the images and texts of many requests.

    queue -> up to `batch` items, after a wait of a few milliseconds -> one pass -> futures

The model is loaded in that thread, too, so that the server can answer other requests at once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from openmofi.config import ServeSettings
from openmofi.errors import OpenMOFIError
from openmofi.serve.metrics import Metrics
from openmofi.serve.refusal import Refusal

if TYPE_CHECKING:
    from openmofi.model import MofiModel


Call = Callable[["MofiModel"], Any]
Work = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass
class _Item:
    """A text, the pixels of an image, or a call, with the future of its result."""

    content: str | np.ndarray | Call
    result: Future[Any] = field(default_factory=Future)


class BatchingEncoder:
    """Encodes for many requests at once."""

    def __init__(self, load: Callable[[], MofiModel], settings: ServeSettings, metrics: Metrics):
        self._load, self._settings, self._metrics = load, settings, metrics
        self._items: queue.Queue[_Item | None] = queue.Queue(settings.queue)
        self._ready = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Starts the thread, which loads the model; does nothing if it has been started."""
        with self._lock:
            if self._thread.ident is None and not self._stopped:
                self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the waiting items; no more are accepted."""
        with self._lock:  # nothing can be queued after the end
            self._stopped = True
            if self._thread.is_alive():
                self._items.put(None)
        if self._ready:  # while the model is still loading, no item can be finished
            self._thread.join(timeout=5)

    def text(self, text: str) -> Future[np.ndarray]:
        """Queues a text; the result is its vector.

        Raises:
            Refusal: too many wait.
        """
        return self._queued(text)

    def image(self, pixels: np.ndarray) -> Future[np.ndarray]:
        """Queues the pixels of an image, as the model's transform returns them.

        Raises:
            Refusal: too many wait.
        """
        return self._queued(pixels)

    def call(self, work: Call) -> Future[Any]:
        """Queues a function of the model; the result is its return value.

        Raises:
            Refusal: too many wait.
        """
        return self._queued(work)

    def _queued(self, content: str | np.ndarray | Call) -> Future[Any]:
        self.start()
        item = _Item(content)
        try:
            with self._lock:
                if self._stopped:
                    raise Refusal(503, "stopping", "The server is being stopped.")
                self._items.put_nowait(item)
        except queue.Full:
            message = "Too many images and texts wait for the encoder; try again in a second."
            raise Refusal(503, "encoder_busy", message, {"retry-after": "1"}) from None
        self._metrics.queue_length.set(self._items.qsize())
        return item.result

    def _run(self) -> None:
        try:
            model = self._loaded()
        except OpenMOFIError as error:
            return self._refuse_all(Refusal(503, "no_encoder", str(error)))
        except Exception as error:  # passed on to those who wait for the model
            return self._refuse_all(error)
        self._ready = True
        kinds = (
            (str, model.encode_texts),
            (np.ndarray, lambda images: model.encode_pixels(np.stack(images))),
            (Callable, lambda calls: [call(model) for call in calls]),
        )
        while (batch := self._next_batch()) is not None:
            self._metrics.queue_length.set(self._items.qsize())
            for kind, work in kinds:
                self._do(work, [item for item in batch if isinstance(item.content, kind)])
            del batch  # it may hold much memory, and the next batch may take long to arrive

    def _do(self, work: Work, items: list[_Item]) -> None:
        """Works on the items that are still wanted: a client that disconnects cancels its own."""
        items = [item for item in items if item.result.set_running_or_notify_cancel()]
        if items:
            self._metrics.batch_size.observe(len(items))
            _work(work, items)

    def _loaded(self) -> MofiModel:
        import torch

        torch.set_num_threads(self._settings.threads)
        return self._load()

    def _refuse_all(self, error: Exception) -> None:
        while (item := self._items.get()) is not None:
            if item.result.set_running_or_notify_cancel():
                item.result.set_exception(error)

    def _next_batch(self) -> list[_Item] | None:
        """Waits for an item, and a little for more; returns None at the end."""
        first = self._items.get()
        if first is None:
            return None
        batch, until = [first], time.monotonic() + self._settings.batch_wait
        while len(batch) < self._settings.batch:
            try:
                item = self._items.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if item is None:
                self._items.put(None)  # the end, once this batch is done
                break
            batch.append(item)
        return batch


def _work(work: Work, items: list[_Item]) -> None:
    """Works on a batch; if that fails, item by item, so that a bad item only affects itself."""
    try:
        results = list(work([item.content for item in items]))
    except Exception as error:
        if len(items) == 1:
            items[0].result.set_exception(error)
            return
        for item in items:
            _work(work, [item])
        return
    for item, result in zip(items, results, strict=True):
        item.result.set_result(result)
