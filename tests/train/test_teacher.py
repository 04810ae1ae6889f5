"""What a teacher leaves for students, and that they are shown what it saw."""

import json
import sys

import numpy as np
import pytest
import torch

from model.tiny_models import write_model
from openmofi.config import AugmentSettings, EvaluationSettings
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.model import load_model
from openmofi.train import train
from openmofi.train.augment import augment
from openmofi.train.data import open_train_data
from openmofi.train.distributed import World
from openmofi.train.loop import _make_loader, make_model
from openmofi.train.reinforce import reinforce
from openmofi.train.teacher import IMAGES, TEXTS, Teacher, check_teachers, teacher_draws
from openmofi.train.texts import TextMix
from selected import losses, tiny, write_selected

pytestmark = pytest.mark.slow

module = sys.modules["openmofi.train.reinforce"]  # its name is also the function's

FILES = ["images.npy", "captions.npy", "names.npy", "descriptions.npy", "card.json"]
HELD_OUT = {"holdout": 0.25, "every": 9}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return {kind: write_model(folder / kind, kind) for kind in ("clip", "siglip")}


@pytest.fixture
def data(tmp_path):
    return write_selected(tmp_path / "data", second=2)


@pytest.fixture
def teach(models, data, tmp_path):
    """Returns a function that makes a teacher's folder of `data`."""

    def make(kind="clip", name="teacher", augmentations=3, **changes):
        settings, out = tiny(evaluation=HELD_OUT, **changes), tmp_path / name
        more = {"data": data, "recipe": settings, "out": out, "device": "cpu"}
        return reinforce(models[kind], augmentations=augmentations, **more)

    return make


def _learnt(data):
    return open_train_data(data).split(EvaluationSettings(holdout=0.25), seed=0).learnt


def _images(data, transform):
    rows = data.records(np.arange(len(data)), ["shard", "offset", "size"]).to_pylist()
    for row in rows:
        file = (data.root / row["shard"]).read_bytes()
        yield transform.pixels(file[row["offset"] : row["offset"] + row["size"]]).copy()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vectors_are_those_of_the_images_augmented_one_by_one(teach, data, models, kind):
    teacher = Teacher(teach(kind).out)
    model, images = load_model(models[kind], device="cpu"), _learnt(data)
    assert teacher.images.shape == (18, 3, model.dim)
    assert teacher.images.dtype == np.float16
    for row, pixels in enumerate(_images(images, model.transform)):
        for number in range(3):
            draws = teacher.draws(np.array([row]), np.array([number])).astype(np.float32)
            seen = augment(
                torch.from_numpy(pixels)[None], AugmentSettings(), torch.from_numpy(draws)
            )
            expected = model.encode_pixels(seen.numpy())[0]
            np.testing.assert_allclose(teacher.images[row, number], expected, atol=2e-3)


def test_vectors_of_texts_are_the_teachers(teach, data, models):
    teacher, model, images = Teacher(teach().out), load_model(models["clip"]), _learnt(data)
    rows, targets = np.array([4, 5, 6]), images.targets(np.array([4, 5, 6]))[:, 0]
    kinds = np.array([0, 1, 2])
    _, found = teacher.vectors(rows, np.zeros(3, int), kinds, targets)
    drawn = TextMix(images, ("caption", "name", "description")).texts(kinds, rows, targets)
    np.testing.assert_allclose(found, model.encode_texts(drawn), atol=1e-3)
    assert drawn[2].startswith(("Red Apple: a round", "Green Apple", "Lime: a small"))


def test_every_augmentation_of_every_image_has_numbers_of_its_own():
    rows, numbers = np.divmod(np.arange(12), 3)
    draws = teacher_draws(rows, numbers, augmentations=3, seed=1)
    assert len(np.unique(draws, axis=0)) == 12


def test_vectors_are_found_by_image_number_and_kind_of_text(teach, data):
    out = teach().out
    for place, name in enumerate((IMAGES, *TEXTS)):
        stored = np.load(out / f"{name}.npy")
        stored[..., 0] = np.arange(stored[..., 0].size).reshape(stored.shape[:-1]) + 100 * place
        np.save(out / f"{name}.npy", stored)
    teacher = Teacher(out)
    rows, numbers, targets = np.array([9, 8, 7]), np.array([0, 2, 1]), np.array([0, 1, 2])
    images, texts = teacher.vectors(rows, numbers, np.array([0, 1, 2]), targets)
    assert images[:, 0].tolist() == [27, 26, 22]
    assert texts[:, 0].tolist() == [109, 201, 302]


def test_the_student_is_shown_the_stored_augmentation(teach, data):
    out = teach().out
    settings, images = tiny(evaluation=HELD_OUT, loss={"teachers": [str(out)]}), _learnt(data)
    teacher, world = Teacher(out), World(0, 1, torch.device("cpu"))
    model, texts = make_model(settings, images, device="cpu"), TextMix(images, settings.loss.text)
    numbers = set()
    for batch in _make_loader(settings, images, model, texts, [teacher], world).batches(0, 9):
        vectors = batch.teachers[0][0].numpy()
        for row, draws, vector in zip(batch.rows.numpy(), batch.draws, vectors, strict=True):
            near = np.abs(teacher.images[row].astype(np.float32) - vector).max(1)
            number = int(near.argmin())
            expected = teacher_draws(
                row[None], np.array([number]), augmentations=3, seed=teacher.card["seed"]
            )
            assert near[number] == 0
            np.testing.assert_array_equal(draws, expected[0].astype(np.float32))
            numbers.add(number)
    assert numbers == {0, 1, 2}


def test_students_learn_from_two_teachers(teach, data, tmp_path):
    folders = [str(teach(kind, name=kind).out) for kind in ("clip", "siglip")]
    settings = tiny(evaluation=HELD_OUT, loss={"teachers": folders}, workers=1)
    train(settings, data=data, out=tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert all(line["distillation"] > 0 for line in lines if "loss" in line)
    alone = tiny(evaluation=HELD_OUT, loss={"teachers": folders[:1]})
    train(alone, data=data, out=tmp_path / "alone")
    assert losses(tmp_path / "run") != losses(tmp_path / "alone")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "are of other data"),
        ({"evaluation": {"holdout": 0.5}}, "are of other data"),
        ({"augment": {"crop": 0.5}}, "make them equal"),
        ({"augment": {"when": "repeats"}}, "set augment.when=always"),
    ],
)
def test_a_student_of_other_images_is_refused(teach, data, tmp_path, changes, message):
    settings = {"evaluation": HELD_OUT, "loss": {"teachers": [str(teach().out)]}} | changes
    with pytest.raises(MismatchError, match=message):
        train(tiny(**settings), data=data, out=tmp_path / "run")


def test_vectors_of_other_crops_are_refused_where_there_are_crops(teach, data):
    teacher, images = Teacher(teach().out), _learnt(data)
    del teacher.card["crops"]
    with pytest.raises(MismatchError, match="run `openmofi reinforce` again"):
        teacher.check(images, AugmentSettings())
    teacher.card["augment"]["crop"] = 1.0
    teacher.check(images, AugmentSettings(crop=1.0))


def test_renamed_entities_are_other_data(teach, data):
    teacher, images = Teacher(teach().out), _learnt(data)
    teacher.check(images, AugmentSettings())
    renamed = images.vocabulary.set_column(1, "label", [["Apple", "Pear", "Lime"]])
    object.__setattr__(images, "vocabulary", renamed)
    with pytest.raises(MismatchError, match="are of other data"):
        teacher.check(images, AugmentSettings())


def test_teachers_of_different_augmentations_are_refused(teach, data):
    teachers = [Teacher(teach(name=str(n), augmentations=n).out) for n in (2, 3)]
    with pytest.raises(MismatchError, match="the same --augmentations and seed"):
        check_teachers(teachers, _learnt(data), AugmentSettings())
    check_teachers([], _learnt(data), AugmentSettings())


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("notes", range(1, 13))
def test_a_killed_job_goes_on_to_the_same_files(teach, data, monkeypatch, tmp_path, notes):
    monkeypatch.setattr(module, "_CHUNK", 7)
    _damage(data)
    write, left = module._write, iter([*[True] * notes, False])

    def dying(*arguments):
        if not next(left, True):
            raise _Killed
        write(*arguments)

    whole = teach(name="whole")
    monkeypatch.setattr(module, "_write", dying)
    with pytest.raises(_Killed):
        teach(name="cut")
    with pytest.raises(InputError, match="the same command again"):
        Teacher(tmp_path / "cut")
    assert teach(name="cut").unreadable == whole.unreadable == {"corrupt_image": 2}
    for name in FILES:
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "cut"))
        assert one == other, name
    assert {p.name for p in (tmp_path / "cut").iterdir()} == set(FILES)


def _damage(data):
    learnt = _learnt(data)
    table = learnt.records(np.arange(len(learnt)))
    tar = bytearray((data.parent / "a.tar").read_bytes())
    for row in (3, 9):
        offset, size = (table[name][row].as_py() for name in ("offset", "size"))
        tar[offset : offset + size] = b"x" * size
    (data.parent / "a.tar").write_bytes(tar)


def test_unreadable_images_have_zeros_and_the_others_theirs(teach, data):
    _damage(data)
    summary = teach()
    assert summary.unreadable == {"corrupt_image": 2}
    lengths = np.linalg.norm(Teacher(summary.out).images.astype(np.float32), axis=2)
    assert np.flatnonzero((lengths == 0).all(1)).tolist() == [3, 9]
    np.testing.assert_allclose(np.delete(lengths, (3, 9), 0), 1, rtol=1e-3)


def test_a_finished_folder_is_not_made_again_nor_for_something_else(teach, models, tmp_path):
    first = teach()
    before = (first.out / "images.npy").stat().st_mtime_ns
    assert (teach().dim, teach().texts) == (first.dim, first.texts) == (8, 24)
    assert (first.out / "images.npy").stat().st_mtime_ns == before
    with pytest.raises(MismatchError, match="another augmentations; repeat"):
        teach(augmentations=2)
    with pytest.raises(MismatchError, match="another digest, teacher"):
        teach("siglip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(InputError, match="holds no teacher's vectors"):
        teach(name="other")
    with pytest.raises(SettingsError, match="expected at least 1"):
        teach(augmentations=0)


def test_a_file_that_went_missing_is_one_sentence(teach, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_encode_texts", _die)
    with pytest.raises(_Killed):
        teach()
    (tmp_path / "teacher/images.npy").unlink()
    with pytest.raises(InputError, match="is gone or damaged; delete"):
        teach()


def _die(*_):
    raise _Killed


def test_raw_pairs_have_captions_alone(models, data, tmp_path):
    loss = {"supervised": 0, "text": ["caption"]}
    settings, tar, out = tiny(loss=loss), data.parent / "a.tar", tmp_path / "teacher"
    summary = reinforce(models["clip"], data=tar, recipe=settings, out=out, device="cpu")
    assert (summary.images, summary.texts) == (24, 24)
    assert np.load(out / "names.npy").shape == (0, 8)
    taught = tiny(loss=loss | {"teachers": [str(out)]})
    assert train(taught, data=tar, out=tmp_path / "run").finished


def test_a_teacher_that_gives_no_numbers_is_one_sentence(models, teach, monkeypatch):
    nothing = np.full((1, 8), np.nan, np.float32)
    monkeypatch.setattr("openmofi.model.MofiModel.encode_pixels", lambda *_: nothing)
    with pytest.raises(module.OpenMOFIError, match="not finite; try"):
        teach()
