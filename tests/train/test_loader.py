import numpy as np
import pytest
import torch

import fruit
from conftest import jpeg, write_tar
from openmofi.errors import InputError
from openmofi.model.transform import Transform
from openmofi.train.augment import NUM_DRAWS
from openmofi.train.class_balance import ClassBalance
from openmofi.train.data import open_train_data
from openmofi.train.loader import BatchMaker, Loader
from openmofi.train.order import Order
from openmofi.train.texts import TextMix
from selected import write_selected


@pytest.fixture
def pairs(tmp_path):
    members = {}
    for i in range(12):
        members |= {f"{i:02d}.jpg": jpeg((20 * i, 0, 0)), f"{i:02d}.txt": f"number {i}".encode()}
    members["03.jpg"] = b"no image"
    return write_tar(tmp_path / "a.tar", members)


def _maker(path, **more):
    data = open_train_data(path)
    return BatchMaker(data, Transform(16), Order(len(data), 0), batch_size=4, **more)


def _same(one, other):
    names = ("rows", "pixels", "targets", "draws", "keys", "epochs")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_corrupt_image_is_counted_and_another_stands_in(pairs):
    batches = [_maker(pairs)[step] for step in range(3)]
    assert sum(batch.num_unreadable for batch in batches) == 1
    assert all(3 not in batch.rows and len(batch.rows) == 4 for batch in batches)


def test_a_step_is_the_same_however_it_is_made(pairs):
    whole = list(Loader(_maker(pairs), threads=2).batches(0, 8))
    part = list(Loader(_maker(pairs, cache_bytes=0), threads=1).batches(5, 8))
    assert all(_same(one, other) for one, other in zip(whole[5:], part, strict=True))


def test_processes_make_the_same_batches_as_threads(pairs):
    by_threads = list(Loader(_maker(pairs), threads=1).batches(0, 5))
    by_processes = list(Loader(_maker(pairs), threads=1, workers=2).batches(0, 5))
    assert [batch.step for batch in by_processes] == list(range(5))
    assert all(_same(one, other) for one, other in zip(by_threads, by_processes, strict=True))


def test_operations_draw_numbers_of_their_own(pairs):
    """Without them, a step's numbers are those that every earlier version drew."""
    with_none, with_two = _maker(pairs)[3], _maker(pairs, rand_ops=2)[3]
    assert torch.equal(with_two.draws[:, :NUM_DRAWS], with_none.draws)
    assert with_two.draws.shape == (4, NUM_DRAWS + 4)
    assert all(
        torch.equal(getattr(with_two, name), getattr(with_none, name))
        for name in ("rows", "pixels", "targets", "keys", "epochs")
    )
    known = [0.49777302, 0.29010704, 0.25750676]
    np.testing.assert_allclose(with_none.draws[0, :3].tolist(), known, atol=1e-7)


def test_the_shares_of_processes_join_to_the_batch_of_one(tmp_path):
    path = write_selected(tmp_path, second=2)
    (tmp_path / "a.tar").write_bytes(
        (tmp_path / "a.tar").read_bytes().replace(b"\xff\xd8\xff\xe0", b"none", 3)
    )
    data = open_train_data(path)
    texts = TextMix(data, ("caption", "name"))
    more = {"texts": texts, "tokenize": lambda drawn: {}, "draw_entity": True}
    for step in range(6):
        whole = _maker(path, **more)[step]
        parts = [_maker(path, share=slice(n, n + 2), **more)[step] for n in (0, 2)]
        for name in ("rows", "pixels", "targets", "draws", "keys", "epochs"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined, getattr(whole, name)), name


def test_where_hardly_any_image_can_be_read_it_stops(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"none", "1.txt": b"words"})
    with pytest.raises(InputError, match="are the shards still there"):
        _maker(path)[0]


def test_any_of_several_entities_may_be_meant(tmp_path):
    path = write_selected(tmp_path, second=2)
    data = open_train_data(path)
    maker = _maker(path, draw_entity=True)
    several = {row for row, lists in enumerate(data.targets(np.arange(24))) if lists[1] >= 0}
    meant = {}
    for step in range(60):
        batch = maker[step]
        for row, target, epoch in zip(batch.rows, batch.targets, batch.epochs, strict=True):
            meant.setdefault(int(row), set()).add(int(target[0]))
            assert set(target.tolist()) - {-1} == set(data.targets(row[None].numpy())[0]) - {-1}
            assert 0 <= epoch < 10
    assert several
    assert all(len(classes) == (2 if row in several else 1) for row, classes in meant.items())


def test_images_follow_their_rows(tmp_path):
    path = write_selected(tmp_path)
    batch = _maker(path)[1]
    for pixels, target in zip(batch.pixels, batch.targets, strict=True):
        colour = pixels.float().mean((0, 1)).numpy()
        distances = {name: np.abs(colour - c).sum() for name, c in fruit.COLOURS.items()}
        assert min(distances, key=distances.get) == fruit.NAMES[int(target[0])]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_cache_changes_no_pixel(tmp_path, threads):
    """Rows come twice in a batch, two images cannot be read, and threads share the cache."""
    selection = write_selected(tmp_path)
    tar = bytearray((tmp_path / "a.tar").read_bytes())
    data = open_train_data(selection)
    for place in data.records(np.array([3, 9])).to_pylist():
        tar[place["offset"] : place["offset"] + place["size"]] = b"x" * place["size"]
    (tmp_path / "a.tar").write_bytes(tar)
    assert data.classes is not None
    order = Order(len(data), 0, ClassBalance(data.classes, data.rows, 1.0))
    makers = [
        BatchMaker(data, Transform(16), order, batch_size=20, cache_bytes=size)
        for size in (0, 1 << 30)
    ]
    plain, cached = (list(Loader(maker, threads=threads).batches(0, 8)) for maker in makers)
    for one, other in zip(plain, cached, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert torch.equal(one.pixels, other.pixels)
