"""What a teacher leaves for students, and that they are shown what it saw."""

import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from conftest import jpeg
from model.tiny_models import write_model
from openmofi.config import (
    AugmentSettings,
    EmbedSettings,
    EvaluationSettings,
    ReinforceSettings,
    override,
)
from openmofi.embed import embed
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.model import load_model, save_model
from openmofi.shards import commits, committed_files, freeze_plan
from openmofi.train import train
from openmofi.train.augment import augment
from openmofi.train.data import open_train_data, with_synthetic
from openmofi.train.distributed import World
from openmofi.train.loop import _make_loader, make_model
from openmofi.train.reinforce import reinforce
from openmofi.train.run import Run
from openmofi.train.shard_reinforcer import teacher_shards
from openmofi.train.teacher import Teacher, check_teachers, teacher_draws
from openmofi.train.texts import TextMix
from selected import losses, tiny, write_selected
from taught import write_teacher

pytestmark = pytest.mark.slow

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

    def make(kind="clip", name="teacher", augmentations=3, how=None, **changes):
        recipe, out = tiny(evaluation=HELD_OUT, **changes), tmp_path / name
        options = {"device": "cpu", "augmentations": augmentations} | (how or {})
        settings = ReinforceSettings(**options)
        return reinforce(models[kind], data=data, recipe=recipe, out=out, settings=settings)

    return make


def _images_of(teacher):
    """All stored vectors of images [images, augmentations, dim]."""
    rows = np.arange(18)
    kinds = np.zeros_like(rows)
    found = [
        teacher.vectors(rows, np.full_like(rows, number), kinds, rows, kinds)[0]
        for number in range(teacher.augmentations)
    ]
    return np.stack(found, axis=1)


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
    stored = _images_of(teacher)
    assert stored.shape == (18, 3, model.dim)
    for row, pixels in enumerate(_images(images, model.transform)):
        for number in range(3):
            draws = teacher.draws(np.array([row]), np.array([number])).astype(np.float32)
            seen = augment(
                torch.from_numpy(pixels)[None], AugmentSettings(), torch.from_numpy(draws)
            )
            expected = model.encode_pixels(seen.numpy())[0]
            np.testing.assert_allclose(stored[row, number], expected, atol=2e-3)


def test_vectors_of_texts_are_the_teachers(teach, data, models):
    teacher, model, images = Teacher(teach().out), load_model(models["clip"]), _learnt(data)
    rows, targets = np.array([4, 5, 6]), images.targets(np.array([4, 5, 6]))[:, 0]
    kinds = np.array([0, 1, 2])
    none = np.zeros(3, int)
    _, found = teacher.vectors(rows, none, kinds, targets, none)
    drawn = TextMix(images, ("caption", "name", "description")).texts(kinds, rows, targets, none)
    np.testing.assert_allclose(found, model.encode_texts(drawn), atol=1e-3)
    assert drawn[2].startswith(("Red Apple: a round", "Green Apple", "Lime: a small"))


def test_every_augmentation_of_every_image_has_numbers_of_its_own():
    rows, numbers = np.divmod(np.arange(12), 3)
    draws = teacher_draws(rows, numbers, augmentations=3, seed=1)
    assert len(np.unique(draws, axis=0)) == 12
    with_operations = teacher_draws(rows, numbers, augmentations=3, seed=1, rand_ops=2)
    np.testing.assert_array_equal(with_operations[:, :8], draws)
    assert len(np.unique(with_operations)) == 12 * 12
    # What every store holds that was made before
    draws = teacher_draws(np.array([7]), np.array([2]), augmentations=3, seed=1)
    np.testing.assert_allclose(draws[0, :3], [0.51699956, 0.41817664, 0.22694943], atol=1e-7)


@pytest.mark.parametrize("each", [4, 1024])
def test_vectors_are_found_by_image_number_and_kind_of_text(tmp_path, monkeypatch, each):
    monkeypatch.setattr("openmofi.train.shard_reinforcer._LEAST", each)
    shapes = {"images": (10, 3), "captions": (10,), "names": (5,), "descriptions": (5,)}
    numbered = {
        name: np.arange(np.prod(shape)).reshape(*shape, 1).repeat(4, -1) + 100 * place
        for place, (name, shape) in enumerate(shapes.items())
    }
    write_teacher(tmp_path / "t", {"augmentations": 3}, **numbered)
    teacher = Teacher(tmp_path / "t")
    rows, numbers, targets = np.array([9, 8, 7]), np.array([0, 2, 1]), np.array([0, 1, 2])
    images, texts = teacher.vectors(rows, numbers, np.array([0, 1, 2]), targets, targets)
    assert images[:, 0].tolist() == [27, 26, 22]
    assert texts[:, 0].tolist() == [109, 201, 302]


def test_the_student_is_shown_the_stored_augmentation(teach, data):
    out = teach().out
    settings, images = tiny(evaluation=HELD_OUT, loss={"teachers": [str(out)]}), _learnt(data)
    teacher, world = Teacher(out), World(0, 1, torch.device("cpu"))
    stored = _images_of(teacher)
    model, texts = make_model(settings, images, device="cpu"), TextMix(images, settings.loss.text)
    numbers = set()
    for batch in _make_loader(settings, images, model, texts, [teacher], world).batches(0, 9):
        vectors = batch.teachers[0][0].numpy()
        for row, draws, vector in zip(batch.rows.numpy(), batch.draws, vectors, strict=True):
            near = np.abs(stored[row] - vector).max(1)
            number = int(near.argmin())
            expected = teacher_draws(
                row[None], np.array([number]), augmentations=3, seed=teacher.card["seed"]
            )
            assert near[number] == 0
            np.testing.assert_array_equal(draws, expected[0].astype(np.float32))
            numbers.add(number)
    assert numbers == {0, 1, 2}


REPEATS = {"when": "repeats"}


def test_the_first_version_for_repeats_is_the_image_itself(teach, data, models):
    stored = _images_of(Teacher(teach(augment=REPEATS).out))
    model, images = load_model(models["clip"], device="cpu"), _learnt(data)
    plain = model.encode_pixels(np.stack(list(_images(images, model.transform))))
    np.testing.assert_allclose(stored[:, 0], plain, atol=2e-3)
    always = _images_of(Teacher(teach(name="always").out))
    assert (np.abs(always[:, 0] - plain).max(1) > 1e-2).all()
    np.testing.assert_array_equal(stored[:, 1:], always[:, 1:])


def test_the_first_epoch_shows_and_teaches_the_image_itself_and_later_ones_do_not(teach, data):
    out = teach(augment=REPEATS).out
    settings = tiny(evaluation=HELD_OUT, augment=REPEATS, loss={"teachers": [str(out)]})
    images, stored = _learnt(data), _images_of(Teacher(out))
    world = World(0, 1, torch.device("cpu"))
    model, texts = make_model(settings, images, device="cpu"), TextMix(images, settings.loss.text)
    run = Run(model, images, settings, world)
    plain = np.stack(list(_images(images, model.transform)))
    teachers, numbers = [Teacher(out)], {0: set(), 1: set(), 2: set()}
    for batch in _make_loader(settings, images, model, texts, teachers, world).batches(0, 6):
        shown = run._augmented(batch).numpy()
        for place, (row, epoch) in enumerate(zip(batch.rows, batch.epochs.tolist(), strict=True)):
            near = np.abs(stored[row] - batch.teachers[0][0][place].numpy()).max(1)
            numbers[epoch].add(int(near.argmin()))
            assert near.min() == 0
            assert np.array_equal(shown[place], plain[row]) == (epoch == 0)
    assert numbers == {0: {0}, 1: {1, 2}, 2: {1, 2}}


@pytest.fixture
def captions(tmp_path):
    """Synthetic captions of most images, up to three each."""
    words = ["a red apple", "green apple on the table", "lime"]
    lists = {f"{row:03d}": words[row % 3 :] for row in range(20)}
    columns = {"key": list(lists), "synthetic": list(lists.values())}
    pq.write_table(pa.table(columns), tmp_path / "captions.parquet")
    return {"synthetic": str(tmp_path / "captions.parquet")}


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({}, ["caption", "name"]),
        ({"rand_ops": 2, "rand_magnitude": 0.8}, ["synthetic"]),
        (REPEATS | {"rand_ops": 1}, ["synthetic", "description", "caption"]),
    ],
)
def test_a_student_is_taught_by_what_it_is_shown(teach, data, models, captions, changes, texts):
    """The teacher's encoder itself is asked about the student's pixels and tokens."""
    loss = {"text": texts} | (captions if "synthetic" in texts else {})
    out, init = teach(augment=changes, loss=loss).out, {"init": str(models["clip"])}
    loss |= {"teachers": [str(out)]}
    model = init | {"image_size": None}
    settings = tiny(evaluation=HELD_OUT, augment=changes, model=model, loss=loss)
    world, source = World(0, 1, torch.device("cpu")), open_train_data(data)
    everything = with_synthetic(source, settings.loss.synthetic, source=data)
    images = everything.split(EvaluationSettings(holdout=0.25), seed=0).learnt
    student, mix = make_model(settings, images, device="cpu"), TextMix(images, settings.loss.text)
    run, encoder = Run(student, images, settings, world), load_model(models["clip"], device="cpu")
    teachers = [Teacher(out)]
    check_teachers(teachers, images, settings.augment)
    for batch in _make_loader(settings, images, student, mix, teachers, world).batches(0, 6):
        seen = encoder.encode_pixels(run._augmented(batch).numpy())
        np.testing.assert_allclose(batch.teachers[0][0].numpy(), seen, atol=2e-3)
        with torch.no_grad():
            read = encoder.network.get_text_features(**batch.tokens).pooler_output
        read = torch.nn.functional.normalize(read, dim=-1)
        np.testing.assert_allclose(batch.teachers[0][1].numpy(), read.numpy(), atol=2e-3)


def test_teachers_of_other_synthetic_captions_are_refused(teach, data, captions, tmp_path):
    with_them = {"loss": {"text": ["synthetic", "name"]} | captions}
    summary = teach(**with_them)
    assert summary.texts == 18 + 2 * 3 + len(_written(data, captions))
    plain = teach(name="plain").out
    for taught, error in ((summary.out, None), (plain, "not of these synthetic captions")):
        settings = tiny(evaluation=HELD_OUT, **with_them)
        settings = override(settings, {"loss": {"teachers": [str(taught)]}})
        if error is None:
            assert train(settings, data=data, out=tmp_path / "run").finished
            continue
        with pytest.raises(MismatchError, match=error):
            train(settings, data=data, out=tmp_path / "other")
    without = tiny(evaluation=HELD_OUT, loss={"teachers": [str(summary.out)]})
    assert train(without, data=data, out=tmp_path / "without").finished


def _written(data, captions):
    """All synthetic captions of the images learnt from, or their own where there is none."""
    everything = with_synthetic(open_train_data(data), captions["synthetic"], source=data)
    learnt = everything.split(EvaluationSettings(holdout=0.25), seed=0).learnt
    return [text for texts in learnt.synthetic_texts(np.arange(len(learnt))) for text in texts]


def test_operations_are_stated_only_where_there_are_any(teach, data, tmp_path):
    card = json.loads((teach(augment={"rand_ops": 2}).out / "run.json").read_text())
    assert card["augment"] | {"rand_ops": 2, "rand_magnitude": 0.3} == card["augment"]
    loss = {"teachers": [str(tmp_path / "teacher")]}
    with pytest.raises(MismatchError, match="make them equal"):
        train(tiny(evaluation=HELD_OUT, loss=loss), data=data, out=tmp_path / "run")


def test_a_student_of_repeats_that_was_interrupted_ends_in_the_same_bits(teach, data, tmp_path):
    loss = {"teachers": [str(teach(augment=REPEATS).out)]}
    settings = tiny(evaluation=HELD_OUT, augment=REPEATS, loss=loss)
    train(settings, data=data, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut/model/model.safetensors").unlink()
    (tmp_path / "cut/model/config.json").unlink()
    (tmp_path / "cut/checkpoints/latest").write_text("step-2\n")  # within the first epoch
    train(settings, data=data, out=tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    weights = [load_model(tmp_path / name / "model").network for name in ("whole", "cut")]
    whole, cut = (network.state_dict() for network in weights)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_repeats_need_two_versions_and_a_store_of_their_own(teach, data, tmp_path):
    with pytest.raises(SettingsError, match="set --augmentations to at least 2"):
        teach(augmentations=1, augment=REPEATS)
    assert not (tmp_path / "teacher").exists()
    card = json.loads((teach(augment=REPEATS).out / "run.json").read_text())
    assert card["augment"] == {"crop": 0.7, "flip": False, "colour": 0.2, "when": "repeats"}
    card = json.loads((teach(name="always").out / "run.json").read_text())
    assert card["augment"] == {"crop": 0.7, "flip": False, "colour": 0.2}
    loss = {"teachers": [str(tmp_path / "teacher")]}
    with pytest.raises(MismatchError, match=r"augment.when=repeats, and this recipe has"):
        train(tiny(evaluation=HELD_OUT, loss=loss), data=data, out=tmp_path / "run")


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
        ({"augment": {"when": "repeats"}}, "with augment.when=always, and this recipe"),
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
    lengths = np.linalg.norm(_images_of(Teacher(summary.out)), axis=2)
    assert np.flatnonzero((lengths == 0).all(1)).tolist() == [3, 9]
    np.testing.assert_allclose(np.delete(lengths, (3, 9), 0), 1, rtol=1e-3)
    [refused] = (summary.out / "refused").iterdir()
    table = pq.read_table(refused)
    assert table["image"].to_pylist() == [3, 9]
    assert table["reason"].to_pylist() == ["corrupt_image"] * 2


@pytest.mark.parametrize("mapped", [False, True])
def test_the_bytes_do_not_depend_on_processes_nor_on_mapping(teach, monkeypatch, mapped):
    monkeypatch.setattr("openmofi.train.shard_reinforcer._LEAST", 4)
    whole = _digests(teach(name="whole"))
    if mapped:
        monkeypatch.setattr("openmofi.train.data._MAP_ABOVE", 0)
    assert _digests(teach(name="two", how={"workers": 2})) == whole
    for rank in (1, 0):
        how = {"engine": "rank", "rank": rank, "world_size": 2}
        shared = teach(name="shared", how=how)
        assert (shared.shards.left > 0) == (rank == 1)
    assert _digests(shared) == whole
    assert len(whole) == 6  # 18 images, 3 entities


def test_the_bytes_do_not_depend_on_threads(models, tmp_path, monkeypatch):
    monkeypatch.setattr("openmofi.train.shard_reinforcer._TEXTS", 8)
    data, found, threads = (
        write_selected(tmp_path / "many", images=200),
        [],
        torch.get_num_threads(),
    )
    for count in (1, 3):
        torch.set_num_threads(count)
        how = {"data": data, "recipe": tiny(), "settings": ReinforceSettings(device="cpu")}
        found.append(_digests(reinforce(models["clip"], out=tmp_path / str(count), **how)))
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def _digests(summary):
    return [commit.sha256 for commit in commits(summary.out)]


@pytest.mark.parametrize("images", [1, 1024, 1025, 20_000_001])
def test_every_image_is_in_one_of_at_most_ten_thousand_shards(images):
    shards = [shard for shard in teacher_shards(images, 3) if shard.kind == "images"]
    assert len(shards) <= 10_000
    assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
    assert shards[-1].stop == images
    assert [shard.name for shard in shards] == sorted(shard.name for shard in shards)


def test_a_finished_folder_is_not_made_again_nor_for_something_else(teach, models, tmp_path):
    first = teach()
    files = committed_files(first.out)
    assert (teach().dim, teach().texts) == (first.dim, first.texts) == (8, 24)
    assert committed_files(first.out) == files
    with pytest.raises(MismatchError, match="with augmentations = 3, not 2; repeat"):
        teach(augmentations=2)
    with pytest.raises(MismatchError, match="was begun with digest"):
        teach("siglip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(InputError, match="is not an output of `reinforce`"):
        teach(name="other")
    with pytest.raises(SettingsError, match="expected at least 1"):
        teach(augmentations=0)


def test_an_unfinished_folder_and_one_of_an_earlier_version_are_not_read(teach, tmp_path):
    out = teach().out
    (out / "_done/images-00000.json").unlink()
    with pytest.raises(InputError, match="the same command again to finish it"):
        Teacher(out)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/card.json").write_text("{}")
    for open_it in (lambda: Teacher(tmp_path / "old"), lambda: teach(name="old")):
        with pytest.raises(InputError, match="earlier version of openmofi stored them; run"):
            open_it()


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_bytes(b"x" * 99)])
def test_a_file_that_went_missing_is_one_sentence_and_made_again(teach, damage):
    whole = teach()
    expected = _images_of(Teacher(whole.out))
    [file] = (whole.out / "images").iterdir()
    damage(file)
    with pytest.raises(InputError, match="is gone or damaged; delete its record in"):
        _images_of(Teacher(whole.out))
    (whole.out / "_done/images-00000.json").unlink()
    np.testing.assert_array_equal(_images_of(Teacher(teach().out)), expected)


def test_images_that_are_missing_can_be_read_again_later(teach, data):
    whole = _digests(teach(name="whole"))
    tar = data.parent / "a.tar"
    tar.rename(tar.with_suffix(".away"))
    with pytest.raises(InputError, match=r"No image of .* can be read: image_missing 18"):
        teach()
    tar.with_suffix(".away").rename(tar)
    assert teach(how={"retry": "failed,partial"}).shards.done == 2
    assert _digests(teach()) == whole


def test_raw_pairs_have_captions_alone_and_are_mapped(models, data, tmp_path):
    loss = {"supervised": 0, "text": ["caption"]}
    recipe, tar, out = tiny(loss=loss), data.parent / "a.tar", tmp_path / "teacher"
    how = {"data": tar, "recipe": recipe, "settings": ReinforceSettings(device="cpu")}
    summary = reinforce(models["clip"], out=out, **how)
    assert (summary.images, summary.texts) == (24, 24)
    assert {shard.shard for shard in commits(out)} == {"images-00000"}
    read, mapped = open_train_data(tar), open_train_data(tar, mapped_in=out / "pairs")
    assert mapped.fingerprint() == read.fingerprint()
    places = np.arange(24)
    assert mapped.records(places).to_pylist() == read.records(places).to_pylist()
    taught = tiny(loss=loss | {"teachers": [str(out)]})
    assert train(taught, data=tar, out=tmp_path / "run").finished


def test_a_teacher_that_gives_no_numbers_fails_with_one_sentence(models, teach, monkeypatch):
    nothing = np.full((1, 8), np.nan, np.float32)
    monkeypatch.setattr("openmofi.model.MofiModel.encode_pixels", lambda *_: nothing)
    summary = teach()
    assert summary.shards.failed == 1
    [failed] = [commit for commit in commits(summary.out) if commit.status == "failed"]
    assert "not finite; try" in failed.reason


def test_an_image_that_only_the_teacher_could_not_read_is_not_taught(teach, data):
    tar = data.parent / "a.tar"
    whole = tar.read_bytes()
    _damage(data)
    out = teach().out
    tar.write_bytes(whole)  # readable again
    settings, images = tiny(evaluation=HELD_OUT, loss={"teachers": [str(out)]}), _learnt(data)
    model, texts = make_model(settings, images, device="cpu"), TextMix(images, settings.loss.text)
    world = World(0, 1, torch.device("cpu"))
    loader = _make_loader(settings, images, model, texts, [Teacher(out)], world)
    batches = list(loader.batches(0, 9))
    assert not {3, 9} & {int(row) for batch in batches for row in batch.rows}
    assert all(batch.teachers[0][0].any(1).all() for batch in batches)
    assert sum(batch.num_unreadable for batch in batches) >= 2


def test_a_worker_that_finds_other_data_than_the_job_began_with_stops(
    teach, data, tmp_path, monkeypatch
):
    def change_and_freeze(*arguments):
        freeze_plan(*arguments)
        keep = pq.read_table(data / "keep.parquet")
        pq.write_table(keep.take(list(range(24))[::-1]), data / "keep.parquet")

    monkeypatch.setattr(sys.modules[reinforce.__module__], "freeze_plan", change_and_freeze)
    for workers in (1, 2):
        with pytest.raises(MismatchError, match="has changed while its vectors were stored in"):
            teach(name=str(workers), how={"workers": workers})
        assert not list(commits(tmp_path / str(workers)))


def test_a_teacher_without_a_side_for_texts_leaves_no_folder(models, data, tmp_path):
    vision = load_model(models["clip"], device="cpu").network.vision_model
    vision.save_pretrained(tmp_path / "alone")
    shutil.copy(models["clip"] / "preprocessor_config.json", tmp_path / "alone")
    alone = load_model(tmp_path / "alone", device="cpu")
    assert not alone.reads_texts
    save_model(alone, tmp_path / "saved", card="")
    (tmp_path / "a.onnx").write_bytes(b"not looked into")
    for teacher in ("alone", "saved", "a.onnx"):
        with pytest.raises(InputError, match="does not encode both images and texts"):
            reinforce(tmp_path / teacher, data=data, recipe=tiny(), out=tmp_path / "out")
    with pytest.raises(InputError, match="There is no model directory"):
        reinforce(tmp_path / "nothing", data=data, recipe=tiny(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_raw_pairs_are_not_spoiled_by_an_output_among_them(models, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(jpeg())
    (photos / "a.txt").write_text("an apple")
    recipe = tiny(loss={"supervised": 0, "text": ["caption"]})
    with pytest.raises(InputError, match="lies inside the input"):
        reinforce(models["clip"], data=photos, recipe=recipe, out=photos / "teacher")
    assert sorted(path.name for path in photos.iterdir()) == ["a.jpg", "a.txt"]


@pytest.fixture
def embedded(models, data, tmp_path):
    """The folder of another verb's job."""
    out = tmp_path / "vectors"
    embed(models["clip"], data.parent / "a.tar", out=out, settings=EmbedSettings(device="cpu"))
    return out


def test_nothing_is_written_into_the_folder_of_another_job(models, data, embedded):
    before = sorted(embedded.rglob("*"))
    how = {"recipe": tiny(loss={"supervised": 0, "text": ["caption"]}), "out": embedded}
    with pytest.raises(InputError, match="exists and is not an output of `reinforce`"):
        reinforce(models["clip"], data=data.parent / "a.tar", **how)
    assert sorted(embedded.rglob("*")) == before


def test_the_folder_of_another_job_or_one_that_was_only_begun_is_no_teacher(teach, embedded):
    begun = teach().out
    (begun / "plan.parquet").unlink()
    for folder in (embedded, begun, embedded.with_name("nothing")):
        with pytest.raises(InputError, match="is not a finished output of `openmofi reinforce`"):
            Teacher(folder)
    (begun / "run.json").write_text("[")
    with pytest.raises(InputError, match="is not a finished output of `openmofi reinforce`"):
        Teacher(begun)


def test_a_job_that_was_killed_while_it_began_goes_on(teach, tmp_path):
    (tmp_path / "teacher/_done").mkdir(parents=True)
    assert teach().shards.done == 2
