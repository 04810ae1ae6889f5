"""Vectors that came with a dataset, in the format of DataCompDR, brought to a user's images."""

import gzip
import hashlib
import io
import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

import openmofi.cli.reinforce  # noqa: F401
from conftest import write_tar
from openmofi.cli import main
from openmofi.config import ReinforceSettings, override
from openmofi.errors import InputError, MismatchError
from openmofi.pairs.tar import scan_tar
from openmofi.refused import Refused
from openmofi.shards import commits
from openmofi.train import train
from openmofi.train.data import open_train_data, with_synthetic
from openmofi.train.datacompdr import num_teachers, read_samples
from openmofi.train.distributed import World
from openmofi.train.imported_teacher import AS_STORED, open_teachers
from openmofi.train.loop import _make_loader, make_model
from openmofi.train.reinforce import reinforce
from openmofi.train.replay import Version, replay
from openmofi.train.texts import TextMix
from reinforced import members, sample, unit, write_reinforced
from selected import losses, tiny

COUNT, DIM = 12, 16


def _photo(number, side=32):
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write_pairs(folder, *, of_json=None):
    """Writes COUNT images as img2dataset does; of_json(number) is what each .json tells."""
    files = {}
    for number in range(COUNT):
        told = of_json(number) if of_json else {"uid": f"{number:032x}"}
        files[f"{number:09d}.jpg"] = _photo(number)
        files[f"{number:09d}.txt"] = f"caption {number}".encode()
        files[f"{number:09d}.json"] = json.dumps(told).encode()
    folder.mkdir(parents=True, exist_ok=True)
    write_tar(folder / "00000.tar", files)
    return folder


@pytest.fixture
def pairs(tmp_path):
    return _write_pairs(tmp_path / "pairs")


@pytest.fixture
def told(rng):
    return [sample(rng, number, dim=DIM) for number in range(COUNT)]


@pytest.fixture
def bring(tmp_path, pairs):
    """Returns a function that stores vectors of samples for images."""

    def work(samples, *, name="teacher", data=pairs, recipe=None, how=None, **options):
        tars = tmp_path / f"dr-{name}"
        for number, start in enumerate(range(0, len(samples), 5)):
            write_reinforced(tars / "00" / f"{number}.tar", samples[start : start + 5], **options)
        settings = ReinforceSettings(**({"augmentations": 3, "workers": 1} | (how or {})))
        recipe, out = recipe or tiny(), tmp_path / name
        return reinforce(tars, data=data, recipe=recipe, out=out, settings=settings)

    return work


def _student(out, *, text=("caption", "synthetic"), **changes):
    loss = {"supervised": 0.0, "text": list(text), "teachers": [str(out)]}
    loss |= {"synthetic": str(out)} if "synthetic" in text else {}
    return override(tiny(loss=loss, augment=AS_STORED), changes)


def _vectors(out, rows, numbers, kind, written=0):
    teachers, kinds = open_teachers([str(out)], synthetic=None), np.full(len(rows), kind)
    none = np.zeros(len(rows), int)
    found = [t.vectors(rows, numbers, kinds, none, none + written) for t in teachers]
    return [np.concatenate(side, axis=1) for side in zip(*found, strict=True)]


@pytest.mark.parametrize("how", [{}, {"bfloat16": True}, {"as_list": True}])
def test_a_sample_is_read_as_it_was_written(tmp_path, told, how):
    tar = write_reinforced(tmp_path / "0.tar", told[:2], **how)
    _, found = read_samples(tar, scan_tar(tar))
    expected, exact = told[1], {"atol": 0.01 if "bfloat16" in how else 0}
    np.testing.assert_allclose(found.images, expected["image_emb"], **exact)
    np.testing.assert_allclose(found.caption, expected["text_emb"][0], **exact)
    assert (found.uid, found.url) == (expected["uid"], "http://example.org/1.jpg")
    assert found.boxes.tolist() == [box for box, _ in expected["param_aug"]]
    drawn = [
        list(zip(*pair, strict=True))
        for pair in zip(found.operations, found.magnitudes, strict=True)
    ]
    assert drawn == [[(n, np.float32(m)) for n, m in ops] for _, ops in expected["param_aug"]]


def test_equal_synthetic_captions_count_once_with_the_first_ones_vector(tmp_path, told):
    tar = write_reinforced(tmp_path / "0.tar", told[:1])
    [found] = read_samples(tar, scan_tar(tar))
    assert found.texts == ["synthetic 0", "another 0"]
    np.testing.assert_array_equal(found.synthetic, told[0]["text_emb"][1:3])


def test_vectors_of_synthetic_captions_may_stand_beside_the_captions_own(tmp_path, told, rng):
    """As in DFNDR-2B, whose captions and vectors have another name."""
    files, own = members(told[0]), unit(rng, 2, DIM)
    arrays, npz = (
        {"image_emb": told[0]["image_emb"], "text_emb": told[0]["text_emb"][:1]},
        io.BytesIO(),
    )
    np.savez(npz, **arrays, syn_text_dfn_mscoco38k_emb=own)
    texts = json.dumps({"syn_text_dfn_mscoco38k": ["one", "two"]}).encode()
    files |= {f"{told[0]['uid']}.npz": npz.getvalue(), f"{told[0]['uid']}.syn.json": texts}
    tar = write_tar(tmp_path / "0.tar", files)
    [found] = read_samples(tar, scan_tar(tar))
    assert found.texts == ["one", "two"]
    np.testing.assert_array_equal(found.synthetic, own)


def test_nothing_drawn_is_the_identity(tmp_path, told):
    told[0]["param_aug"][1][1] = None
    tar = write_reinforced(tmp_path / "0.tar", told[:1])
    [found] = read_samples(tar, scan_tar(tar))
    assert not found.operations[1].any()
    assert not found.magnitudes[1].any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"paug.json": None}, "no_reinforcement"),
        ({"npz": None}, "no_reinforcement"),
        ({"npz": b"PK no zip"}, "damaged_reinforcement"),
        ({"npz": b""}, "damaged_reinforcement"),
        ({"paug.json": b"{"}, "damaged_reinforcement"),
        ({"paug.json": b'{"param_aug": "[]"}'}, "damaged_reinforcement"),
        ({"paug.json": b'{"param_aug": [[[0, 0, 1, 1], [[14, 0]]]]}'}, "damaged_reinforcement"),
        ({"syn.json": b'{"syn_text": ["a", "b", "c", "d"]}'}, "damaged_reinforcement"),
        ({"json": b"[]"}, "damaged_reinforcement"),
    ],
)
def test_a_damaged_sample_is_refused_alone(tmp_path, told, change, reason):
    files = members(told[0])
    for name, raw in change.items():
        files.pop(f"{told[0]['uid']}.{name}")
        files |= {} if raw is None else {f"{told[0]['uid']}.{name}": raw}
    tar = write_tar(tmp_path / "0.tar", files | members(told[1]))
    first, second = read_samples(tar, scan_tar(tar))
    assert first == Refused(reason)
    assert second.uid == told[1]["uid"]


@pytest.mark.parametrize("value", [np.inf, np.nan, 3.0])
def test_vectors_that_are_not_of_unit_length_are_refused(tmp_path, told, value):
    told[0]["image_emb"][1, 3] = value
    tar = write_reinforced(tmp_path / "0.tar", told[:1])
    assert list(read_samples(tar, scan_tar(tar))) == [Refused("damaged_reinforcement")]


def test_samples_of_another_width_or_with_fewer_versions_are_left_out(bring, told, rng):
    told[1] |= {"image_emb": unit(rng, 3, 8), "text_emb": unit(rng, 4, 8)}
    told[2] |= {"image_emb": told[2]["image_emb"][:2], "param_aug": told[2]["param_aug"][:2]}
    summary = bring(told)
    expected = {"other_width": 1, "too_few_versions": 1, "image_not_reinforced": 2}
    assert summary.unreadable == expected


def test_a_pickle_is_never_run(tmp_path, told, monkeypatch):
    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    files = members(told[0], bfloat16=True)
    file = io.BytesIO()
    torch.save({"image_emb": Bad()}, file)
    files[f"{told[0]['uid']}.pth.gz"] = gzip.compress(file.getvalue())
    tar = write_tar(tmp_path / "0.tar", files)
    assert list(read_samples(tar, scan_tar(tar))) == [Refused("damaged_reinforcement")]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("teachers", [1, 2, 4])
def test_teachers_side_by_side_are_told_apart_by_their_length(rng, teachers):
    assert num_teachers(unit(rng, 1, DIM, teachers=teachers)[0]) == teachers
    with pytest.raises(ValueError, match="unit length"):
        num_teachers(np.repeat([2**0.5, 0.0], DIM // 2))


@pytest.mark.parametrize("by", ["uid", "url"])
def test_vectors_come_to_the_images_of_their_samples(bring, tmp_path, told, by):
    data = _write_pairs(tmp_path / "named", of_json=lambda number: {by: told[number][by]})
    summary = bring(told[::-1], data=data, name=by)
    assert (summary.images, summary.dim, summary.unreadable) == (COUNT, DIM, {})
    assert summary.texts == COUNT * 3  # their own and two synthetic ones
    rows, numbers = np.arange(COUNT), np.arange(COUNT) % 3
    images, captions = _vectors(summary.out, rows, numbers, 0)
    expected = [told[row]["image_emb"][number] for row, number in zip(rows, numbers, strict=True)]
    np.testing.assert_allclose(images, expected, atol=1e-3)
    np.testing.assert_allclose(captions, [t["text_emb"][0] for t in told], atol=1e-3)
    written = _vectors(summary.out, rows, numbers, 3, written=1)[1]
    np.testing.assert_allclose(written, [t["text_emb"][2] for t in told], atol=1e-3)


def test_what_does_not_belong_together_is_counted(bring, tmp_path, told, rng):
    def about(number):
        digest = hashlib.sha256(_photo(number)).hexdigest()
        return {"uid": told[number]["uid"], "sha256": digest}

    data = _write_pairs(tmp_path / "hashed", of_json=about)
    told[3]["sha256"] = hashlib.sha256(_photo(3)).hexdigest()
    told[4]["sha256"] = "0" * 64
    samples = [*told[:10], told[0], sample(rng, 99, dim=DIM)]
    summary = bring(samples, data=data)
    assert summary.unreadable == {"other_image": 1, "not_in_data": 1, "image_not_reinforced": 2}
    [teacher, _] = open_teachers([str(summary.out)], synthetic=None)
    assert np.flatnonzero(~teacher.saw(np.arange(COUNT))).tolist() == [4, 10, 11]


def test_a_student_is_shown_the_stored_versions(bring, pairs, told):
    out = bring(told).out
    settings = _student(out, steps=9)
    images = with_synthetic(open_train_data(pairs), str(out), source=pairs)
    model, texts = make_model(settings, images, device="cpu"), TextMix(images, settings.loss.text)
    teachers, world = (
        open_teachers([str(out)], synthetic=str(out)),
        World(0, 1, torch.device("cpu")),
    )
    loader, seen = _make_loader(settings, images, model, texts, teachers, world), set()
    for batch in loader.batches(0, 9):
        shown = np.concatenate([vectors.numpy() for vectors, _ in batch.teachers], axis=1)
        for row, pixels, vector in zip(batch.rows.tolist(), batch.pixels, shown, strict=True):
            distances = np.abs(told[row]["image_emb"] - vector).max(axis=1)
            number = int(distances.argmin())
            assert distances[number] < 1e-3
            box, ops = told[row]["param_aug"][number]
            version = Version(tuple(box), tuple(map(tuple, ops)))
            expected = replay(_photo(row), version, side=32)
            np.testing.assert_array_equal(pixels.numpy(), expected)
            seen.add((row, number))
    assert len(seen) > 2 * COUNT


@pytest.mark.parametrize("processes", [0, 2])
def test_a_student_learns_from_them(bring, pairs, tmp_path, told, processes):
    out = bring(told).out
    train(_student(out, workers=processes), data=pairs, out=tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 6
    assert "distillation" in (tmp_path / "run/metrics.jsonl").read_text()


def test_two_processes_store_the_same(bring, told):
    rows = np.arange(COUNT)
    one, two = (bring(told, name=str(n), how={"workers": n}).out for n in (1, 2))
    for first, second in zip(
        *(_vectors(out, rows, rows % 3, 0) for out in (one, two)), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_images_may_lie_in_the_same_tars(tmp_path, told):
    """As Apple's own trainer wants them."""
    files = {}
    for number, one in enumerate(told):
        files |= {f"{one['uid']}.jpg": _photo(number), f"{one['uid']}.txt": b"a caption"}
        files |= members(one)
    (tmp_path / "packed").mkdir()
    write_tar(tmp_path / "packed/0.tar", files)
    settings = ReinforceSettings(augmentations=2, workers=1)
    data, out = tmp_path / "packed", tmp_path / "teacher"
    summary = reinforce(data, data=data, recipe=tiny(), out=out, settings=settings)
    assert (summary.images, summary.unreadable, summary.augmentations) == (COUNT, {}, 2)
    train(_student(out), data=data, out=tmp_path / "run")


def test_a_tar_that_ends_early_is_partial(bring, tmp_path, told):
    whole = tmp_path / "dr-cut/00/0.tar"
    write_reinforced(whole, told)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    summary = bring([], name="cut")
    [commit] = commits(summary.out)
    assert (commit.status, commit.reason) == ("partial", "truncated_tar")
    assert 0 < commit.kept < COUNT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"crop": 0.7, "flip": True}}, r"augment.crop=1.0 --set augment.flip=False"),
        (
            {
                "loss": {"text": ["caption"], "synthetic": None},
                "seed": 1,
                "evaluation": {"holdout": 0.25},
            },
            "are of other data",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(bring, pairs, tmp_path, told, changes, message):
    out = bring(told).out
    with pytest.raises(MismatchError, match=message):
        train(_student(out, **changes), data=pairs, out=tmp_path / "run")


def test_other_synthetic_captions_are_refused(bring, pairs, tmp_path, told):
    out, other = bring(told).out, tmp_path / "captions.csv"
    other.write_text("key,synthetic\n" + "".join(f"{n:09d},a text\n" for n in range(COUNT)))
    settings = _student(out, loss={"synthetic": str(other)})
    with pytest.raises(MismatchError, match=r"set loss\.synthetic="):
        train(settings, data=pairs, out=tmp_path / "run")


def test_texts_of_entities_have_no_vectors(bring, tmp_path, told):
    labels = tmp_path / "labels.csv"
    labels.write_text("key,label\n" + "".join(f"{n:09d},E{n % 2}\n" for n in range(COUNT)))
    out, pairs = bring(told).out, tmp_path / "pairs"
    with pytest.raises(MismatchError, match=r"set loss\.text to \[caption\]"):
        train(_student(out, text=("name",)), data=pairs, labels=labels, out=tmp_path / "run")


def test_what_cannot_be_brought_is_one_sentence(bring, tmp_path, pairs, told, rng):
    with pytest.raises(InputError, match="holds 3 versions of each image, fewer than"):
        bring(told, how={"augmentations": 4}, name="more")
    with pytest.raises(InputError, match=r"No image of .* is in .*not_in_data 1"):
        bring([sample(rng, 99, dim=DIM)], name="none")
    with pytest.raises(InputError, match="holds no sample of a reinforced dataset"):
        reinforce(pairs, data=pairs, recipe=tiny(), out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert not (tmp_path / "more").exists()


def test_the_verb_names_the_command_that_trains(tmp_path, pairs, told, capsys, monkeypatch):
    write_reinforced(tmp_path / "dr/0.tar", told[:10])
    recipe = "model: {image_size: 32, vocab_size: 300}\nsteps: 2\nbatch_size: 8\nthreads: 1\n"
    (tmp_path / "recipe.yaml").write_text(recipe + "loss: {supervised: 0}\n")
    monkeypatch.chdir(tmp_path)
    call = ["reinforce", "dr", "--data", "pairs", "--recipe", "recipe.yaml", "--out", "teacher"]
    with pytest.raises(SystemExit) as stopped:
        main([*call, "--augmentations", "3"])
    assert stopped.value.code == 0
    wrote, then = capsys.readouterr().out.splitlines()
    assert wrote == (
        "wrote teacher (12 images x 3 augmentations, 30 texts; left out: image_not_reinforced 2)"
    )
    with pytest.raises(SystemExit) as stopped:
        main(shlex.split(then.removeprefix("next: openmofi ")))
    assert stopped.value.code == 0
