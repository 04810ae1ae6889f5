"""Random worlds, selected from twice: `diff` says what a slow reference says, label by label."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from slow_diff import Told, slow_diff

from labelled import candidate, pair, write_i2e
from openmofi.config import SelectSettings
from openmofi.diff import diff
from openmofi.errors import InputError
from openmofi.label.score import load_weights
from openmofi.link.weights import load_link_weights
from openmofi.select import select

NAMES = ["red", "green", "lime", "plum", "pear", "fig", "kiwi"]
TYPES = {"red": "apple", "green": "apple", "lime": "citrus"}


def catalogue(texts):
    lines = ["id,name,description,weight,type"]
    lines += [f"{n},{n} thing,{texts[n]},1,{TYPES.get(n, 'other')}" for n in NAMES]
    return "\n".join(lines) + "\n"


def random_entities(rng):
    """Up to three mentions, each with up to three candidates."""
    found = []
    for start in (0, 10, 20)[: rng.integers(0, 4)]:
        ids = rng.choice(NAMES, rng.integers(1, 4), replace=False)
        text, prior = rng.dirichlet(np.ones(len(ids) + 1)), rng.dirichlet(np.ones(len(ids)))
        for number, name in enumerate(ids):
            terms = {"prior": float(np.float32(prior[number]))}
            terms["text"] = float(np.float32(text[number]))
            terms["z"] = float(np.float32(rng.normal(2, 2)))
            terms["clip"] = float(np.float32(rng.random()))
            found.append(candidate(str(name), start=start, other=float(rng.normal()), **terms))
    return found


def random_rows(rng, count):
    rows = []
    for number in range(count):
        error = "corrupt_image" if rng.random() < 0.05 else ""
        entities = [] if error else random_entities(rng)
        row = pair(
            f"k{number}",
            *entities,
            error=error,
            image=b"" if error else bytes([int(rng.integers(0, 256)), number % 251]),
            phash=None if rng.random() < 0.3 else int(rng.integers(0, 40)) * 1023,
            text=float(np.float32(rng.random())),
        )
        rows.append(row)
    return rows


def moved(rows, rng, what):
    """The rows as another job would have them."""
    found = []
    for row in json.loads(json.dumps(rows, default=lambda b: {"hex": b.hex()})):
        if row["sha256"]:
            row["sha256"] = bytes.fromhex(row["sha256"]["hex"])
        if "input" in what and rng.random() < 0.1:
            row["caption"] += "!"
        if "input" in what and rng.random() < 0.1 and row["sha256"]:
            row["sha256"] = bytes(32)
        if "input" in what and rng.random() < 0.05:
            continue
        for entity in row["entities"]:
            if "model" in what:
                entity["clip"] += 0.01
                entity["clip_z"] = float(np.float32(entity["clip_z"] + rng.normal()))
            if "reader" in what:
                entity["text_score"] *= float(rng.random())
            if "priors" in what:
                entity["kb_prior"] = entity["prior"]
        if "kb" in what and rng.random() < 0.5 and not row["error"]:
            row["entities"] = random_entities(rng) if rng.random() < 0.5 else row["entities"][:-1]
        found.append(row)
    return found


def job(folder, rows, rng, texts, what=()):
    folder.mkdir()
    if "repacked" in what:
        rows = [rows[i] for i in rng.permutation(len(rows))]
    cut = len(rows) // (3 if "repacked" in what else 2)
    i2e = write_i2e(folder, rows[:cut], rows[cut:], catalogue=catalogue(texts))
    run = json.loads((i2e / "run.json").read_text())
    run |= {"kb": "new" if "kb" in what else "old", "input": "here"}
    run |= {"model_sha256": "new" if "model" in what else "old"}
    run |= {"settings": {"read_above": 0.1 if "reader" in what else 0.2}}
    (i2e / "run.json").write_text(json.dumps(run))
    return i2e


def random_settings(rng, folder):
    order = str(rng.choice(["joint", "joint", "text-first", "caption-match"]))
    given = {"order": order, "false_label_rate": float(rng.choice([0.05, 0.3, 0.6]))}
    given |= {"min_images": int(rng.integers(1, 12)), "max_entities": int(rng.integers(1, 4))}
    given["duplicates"] = str(rng.choice(["keep", "exact", "near"]))
    if rng.random() < 0.4:
        given["max_images"] = given["min_images"] + int(rng.integers(0, 20))
    if rng.random() < 0.3:
        given["deny_types"] = (str(rng.choice(["apple", "citrus"])),)
    if rng.random() < 0.3:
        given["max_text_area"] = 0.8
    if rng.random() < 0.3:
        given["threshold"] = 0.4
    if rng.random() < 0.3:
        path = folder / f"weights{rng.integers(1000)}.json"
        path.write_text(json.dumps({"text": 0.5, "clip_z": 2.0, "nil_z": 1.0}))
        given["weights"] = str(path)
    return given


def told(summary, texts):
    card = json.loads((summary.out / "card.json").read_text())
    denied = {n for n in NAMES if TYPES.get(n) in card["settings"]["deny_types"]}
    found = Told(summary.out, denied, texts)
    found.rule["weights"] = found.rule["weights"] or vars(load_weights())
    found.rule["power"] = load_link_weights(standardised=False).prior
    return found


def changes_of(path):
    rows = pq.read_table(path).to_pylist()
    found = {
        (r["key"], r["kind"], r["id_before"], r["id_after"]): (r["cause"], r["reason"])
        for r in rows
    }
    assert len(found) == len(rows)
    return found


def check(one, other, path, texts):
    summary = diff(one.out, other.out, table=path)
    slow = slow_diff(told(one, texts[0]), told(other, texts[1]))
    assert changes_of(path) == slow
    assert summary.changes == len(slow) == sum(c["changes"] for c in summary.causes.values())
    assert summary.labels_after - summary.labels_before == summary.gained - summary.lost
    assert (summary.labels_before, summary.labels_after) == (one.labels, other.labels)
    return summary


@pytest.mark.parametrize("seed", range(10))
def test_two_selections_from_the_same_labels(tmp_path, seed):
    rng = np.random.default_rng(seed)
    texts = {name: f"about {name}" for name in NAMES}
    i2e = job(tmp_path / "a", random_rows(rng, 120), rng, texts)
    made = []
    while len(made) < 2:
        settings = SelectSettings(**random_settings(rng, tmp_path))
        try:
            made.append(select(i2e, name=f"s{len(made)}", settings=settings))
        except InputError:
            continue
    check(*made, tmp_path / "changes.parquet", (texts, texts))


WHAT = ["input", "kb", "model", "reader", "repacked"]


@pytest.mark.parametrize("seed", range(16))
def test_selections_from_two_jobs(tmp_path, seed):
    rng = np.random.default_rng(100 + seed)
    what = {name for name in WHAT if rng.random() < 0.4} or {WHAT[seed % 5]}
    texts = [{name: f"about {name}" for name in NAMES} for _ in range(2)]
    if "kb" in what:
        texts[1] |= {name: f"more about {name}" for name in NAMES[:2]}
    rows = random_rows(rng, 120)
    jobs = [job(tmp_path / "a", rows, rng, texts[0])]
    jobs.append(job(tmp_path / "b", moved(rows, rng, what), rng, texts[1], what))
    settings, made = random_settings(rng, tmp_path), []
    while len(made) < 2:
        try:
            made.append(select(jobs[len(made)], settings=SelectSettings(**settings)))
        except InputError:
            settings, made = random_settings(rng, tmp_path), []
        else:
            settings = settings if rng.random() < 0.5 else random_settings(rng, tmp_path)
    summary = check(*made, tmp_path / "changes.parquet", texts)
    assert summary.pairs_in_both + summary.pairs_only_before == 120


def test_what_images_taught_is_a_cause(tmp_path):
    rng = np.random.default_rng(7)
    texts = {name: f"about {name}" for name in NAMES}
    rows = []
    for number in range(400):
        mine = [("red", 0.5, rng.normal(0, 1)), ("green", 0.3, rng.normal(3, 1))]
        if number % 4 == 0:
            mine = [("red", 0.5, rng.normal(3, 1)), ("green", 0.3, rng.normal(0, 1))]
        entities = [
            candidate(n, prior=p / 0.8, text=p, z=float(z), other=float(rng.normal()), surface=s)
            for s in ("red thing",)
            for n, p, z in mine
        ]
        rows.append(pair(f"k{number}", *entities, image=bytes([number % 256, number // 256])))
    i2e = job(tmp_path / "a", rows, rng, texts)
    (tmp_path / "w.json").write_text(json.dumps({"text": 1.0, "clip_z": 0.8, "nil_z": 1.0}))
    given = {"threshold": 0.5, "min_images": 1, "weights": str(tmp_path / "w.json")}
    one, other = (
        select(i2e, name=name, settings=SelectSettings(priors=name, **given))
        for name in ("labels", "images")
    )
    summary = check(one, other, tmp_path / "changes.parquet", (texts, texts))
    assert set(summary.causes) == {"priors"}
    assert summary.changes > 20
