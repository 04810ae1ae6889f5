"""Captions that a model wrote: how they find their images, and how they are drawn."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi.config import EvaluationSettings
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.train import train
from openmofi.train.data import open_train_data, with_synthetic
from openmofi.train.labels import read_table
from openmofi.train.order import uniform
from openmofi.train.synthetic import SyntheticCaptions
from openmofi.train.texts import TextMix
from selected import losses, tiny, write_selected
from taught import write_teacher

SYNTHETIC = 3


@pytest.fixture
def data(tmp_path):
    return write_selected(tmp_path / "data")


def _csv(path, keys, column="synthetic"):
    lines = [f"{key},photo {key} {again}" for key in keys for again in "ab"]
    path.write_text("\n".join([f"key,{column}", *lines]))
    return str(path)


def _keys(data, part):
    """The key of each image, by its shard and offset."""
    keep = pq.read_table(data / "keep.parquet")
    columns = zip(keep["shard"].to_pylist(), keep["offset"].to_pylist(), strict=True)
    known = dict(zip(columns, keep["key"].to_pylist(), strict=True))
    places = part.records(np.arange(len(part)), ["shard", "offset"])
    return [known[row["shard"], row["offset"]] for row in places.to_pylist()]


@pytest.mark.parametrize("source", ["select", "a.tar"])
def test_images_get_the_captions_of_their_keys_and_the_others_their_own(data, tmp_path, source):
    place = data.parent / source
    file = _csv(tmp_path / "c.csv", [f"{number:03d}" for number in range(0, 24, 2)])
    everything = with_synthetic(open_train_data(place), file, source=place)
    for part in everything.split(EvaluationSettings(holdout=0.3), seed=1)[:2]:
        found = part.synthetic_texts(np.arange(len(part)))
        own = part.records(np.arange(len(part)), ["caption"])["caption"].to_pylist()
        for key, texts, caption in zip(_keys(data, part), found, own, strict=True):
            written = [f"photo {key} a", f"photo {key} b"]
            assert texts == (written if int(key) % 2 == 0 else [caption])
    assert {"photo 000 a", "photo 022 b"} <= set(everything.texts())


def test_each_caption_is_drawn_equally_often(data, tmp_path):
    columns = {"key": ["003", "004"], "synthetic": [["one", "two", "three"], ["four"]]}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    images = with_synthetic(open_train_data(data), tmp_path / "c.parquet", source=data)
    mix, rows = TextMix(images, ("synthetic",)), np.full(3000, 3)
    numbers = mix.choose(rows, uniform(np.arange(3000), columns=1, key=0)[:, 0])
    drawn = mix.texts(np.full(3000, SYNTHETIC), rows, rows * 0, numbers)
    assert {text: drawn.count(text) > 900 for text in set(drawn)} == dict.fromkeys(
        ("one", "two", "three"), True
    )
    alone = mix.texts(
        np.array([SYNTHETIC, 0]), np.array([4, 4]), np.zeros(2, int), np.zeros(2, int)
    )
    assert alone == ["four", images.records(np.array([4]))["caption"][0].as_py()]


def test_the_digest_tells_of_every_caption_and_where_it_belongs():
    lists = [[["a"], ["b", "c"]], [["a", "b"], ["c"]], [["a"], ["b", "d"]], [["ab"], ["c", ""]]]
    digests = {SyntheticCaptions.of(given, ["", ""]).digest for given in lists}
    assert len(digests) == 4


def test_what_fits_nothing_is_one_sentence(data, tmp_path):
    good, other = _csv(tmp_path / "a.csv", ["001"]), _csv(tmp_path / "b.csv", ["apple"])
    headless = _csv(tmp_path / "c.csv", ["001"], column="words")
    text = ["synthetic", "name"]
    wrong = {
        "no such captions; name a table": (SettingsError, {"text": text}),
        "loss.text lists only": (SettingsError, {"text": ["name"], "synthetic": good}),
        "such as 'apple', is an image of": (InputError, {"text": text, "synthetic": other}),
        "expected synthetic in one of": (InputError, {"text": text, "synthetic": headless}),
        "There is no file": (InputError, {"text": text, "synthetic": "nothing.csv"}),
    }
    for message, (error, loss) in wrong.items():
        with pytest.raises(error, match=message) as raised:
            train(tiny(loss=loss), data=data, out=tmp_path / "run")
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_raw_pairs_learn_from_both_captions_and_only_from_the_same_ones_again(data, tmp_path):
    file = _csv(tmp_path / "c.csv", [f"{number:03d}" for number in range(24)])
    loss = {"supervised": 0, "text": ["caption", "synthetic"], "synthetic": file}
    tar, run = data.parent / "a.tar", tmp_path / "run"
    assert train(tiny(loss=loss), data=tar, out=run).finished
    plain = tiny(loss={"supervised": 0, "text": ["caption"]})
    train(plain, data=tar, out=tmp_path / "plain")
    assert losses(run) != losses(tmp_path / "plain")
    _csv(tmp_path / "c.csv", [f"{number:03d}" for number in range(23)])
    with pytest.raises(MismatchError, match="The data changed since"):
        train(tiny(loss=loss, steps=8), data=tar, out=run, resume=True)


def test_a_teachers_folder_is_no_table_of_captions(tmp_path):
    vectors = np.ones((2, 4))
    texts = {name: vectors for name in ("captions", "names", "descriptions")}
    write_teacher(tmp_path / "teacher", {}, images=vectors[:, None], **texts)
    with pytest.raises(InputError, match="is not a readable table"):
        read_table(tmp_path / "teacher")
