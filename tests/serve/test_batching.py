"""The encoder's queue: many requests, few passes, and what one of them spoils."""

import threading
import time

import numpy as np
import pytest

from openmofi.config import ServeSettings
from openmofi.errors import InputError
from openmofi.model import load_model
from openmofi.serve.encoding import BatchingEncoder
from openmofi.serve.metrics import Metrics
from openmofi.serve.refusal import Refusal
from orchard import client_of, together, wait_until, write_orchard


class CountingModel:
    """Encodes a text as its length, and an image as its mean; notes how many come at once."""

    def __init__(self, seconds: float = 0.0):
        self.batches, self.seconds = [], seconds

    def encode_texts(self, texts):
        self.batches.append(len(texts))
        time.sleep(self.seconds)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[len(text)] for text in texts], np.float32)

    def encode_pixels(self, pixels):
        self.batches.append(len(pixels))
        time.sleep(self.seconds)
        return pixels.reshape(len(pixels), -1).mean(1, keepdims=True)


def _encoder(model, **settings):
    return BatchingEncoder(lambda: model, ServeSettings(threads=1, **settings), Metrics())


def test_forty_requests_take_few_passes_and_each_gets_its_own():
    model = CountingModel(seconds=0.02)
    encoder = _encoder(model, batch_wait=0.01)
    found = together(40, lambda i: encoder.text("x" * i).result())
    assert [float(vector[0]) for vector in found] == list(range(40))
    assert len(model.batches) <= 8
    assert max(model.batches) <= 32


def test_texts_and_images_may_come_together():
    model = CountingModel()
    encoder = _encoder(model, batch_wait=0.05)
    pixels = [np.full((4, 4, 3), i, np.uint8) for i in range(10)]
    work = [lambda i=i: encoder.image(pixels[i]).result() for i in range(10)]
    work += [lambda i=i: encoder.text("x" * i).result() for i in range(10)]
    found = together(20, lambda i: work[i]())
    assert [float(vector[0]) for vector in found] == [*range(10), *range(10)]


def test_vectors_are_the_same_as_one_by_one(nano_dir):
    model = load_model(str(nano_dir))
    encoder = BatchingEncoder(lambda: model, ServeSettings(threads=1), Metrics())
    texts = [f"a flag {'of georgia ' * (i % 4)}{i}" for i in range(12)]
    found = np.stack(together(12, lambda i: encoder.text(texts[i]).result()))
    alone = np.concatenate([model.encode_texts([text]) for text in texts])
    assert np.abs(found - alone).max() < 1e-5


def test_one_item_that_fails_spoils_only_itself():
    encoder = _encoder(CountingModel(), batch_wait=0.1)

    def ask(number):
        try:
            return encoder.text("bad" if number == 3 else "good").result()
        except ValueError:
            return None

    found = together(8, ask)
    assert [answer is None for answer in found] == [i == 3 for i in range(8)]


def test_a_full_queue_says_when_to_come_back():
    encoder = _encoder(CountingModel(seconds=0.3), queue=2, batch=1)

    def ask(_):
        try:
            return encoder.text("x").result()
        except Refusal as refusal:
            return refusal

    refusals = [found for found in together(12, ask) if isinstance(found, Refusal)]
    assert 6 <= len(refusals) <= 10
    assert {(r.status_code, r.code) for r in refusals} == {(503, "encoder_busy")}
    assert all(r.headers["retry-after"] == "1" for r in refusals)


def test_a_model_that_cannot_be_loaded_is_said_to_all():
    def load():
        raise InputError("There is no such model.")

    encoder = BatchingEncoder(load, ServeSettings(threads=1), Metrics())
    for _ in range(2):
        with pytest.raises(Refusal, match="no such model") as refusal:
            encoder.text("x").result()
        assert refusal.value.status_code == 503


def test_a_call_runs_in_the_thread_that_owns_the_model():
    encoder = _encoder(CountingModel())
    threads = together(4, lambda _: encoder.call(_thread).result())
    assert threads == ["encoder"] * 4


def _thread(_):
    return threading.current_thread().name


def test_a_client_that_went_away_spoils_nothing():
    model = CountingModel(seconds=0.2)
    encoder = _encoder(model, batch=1)
    first, given_up, last = (encoder.text("x" * i) for i in range(3))
    assert given_up.cancel()
    assert (float(first.result()[0]), float(last.result()[0])) == (0.0, 2.0)
    assert sum(model.batches) == 2


def test_what_waits_is_done_before_the_end():
    encoder = _encoder(CountingModel(seconds=0.1), batch=1)
    waiting = [encoder.text("x" * i) for i in range(3)]
    wait_until(lambda: waiting[0].done())
    encoder.stop()
    assert [float(vector.result(timeout=0)[0]) for vector in waiting] == [0, 1, 2]


def test_a_stopped_encoder_refuses():
    encoder = _encoder(CountingModel())
    encoder.text("x").result()
    encoder.stop()
    with pytest.raises(Refusal) as refusal:
        encoder.text("x").result()
    assert refusal.value.status_code == 503


def test_concurrent_searches_share_passes_of_the_encoder(tmp_path_factory, nano_dir, monkeypatch):
    orchard = write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)
    settings = ServeSettings(threads=1, batch_wait=0.05)
    with client_of(orchard.index, settings) as client:
        client.post("/api/search", json={"terms": [{"text": "warm"}]})

        def ask(number):
            return client.post("/api/search", json={"terms": [{"text": f"apple {number}"}]})

        statuses = {answer.status_code for answer in together(40, ask)}
        assert statuses == {200}
        page = client.get("/metrics").text
    count, total = (
        float(next(line for line in page.splitlines() if line.startswith(name)).split()[1])
        for name in ("openmofi_batch_size_count", "openmofi_batch_size_sum")
    )
    assert total == 41
    assert count <= 12
