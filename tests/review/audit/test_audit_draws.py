"""Which labels are drawn: as chance and the weights say, and the same for everyone."""

import math
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from audited import write_selection

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.review.audit import draws as module
from openmofi.review.audit import strata as strata_module
from openmofi.review.audit.draws import draw
from openmofi.select.digest import selection_digest


@pytest.fixture(scope="module")
def selection(tmp_path_factory):
    return write_selection(tmp_path_factory.mktemp("draws"))


@pytest.fixture(scope="module")
def digest(selection):
    return selection_digest(selection)


def named(draws):
    return [(d.number, d.row, d.entity, d.cell) for d in draws]


def slow_draws(folder, digest, seed, strata):
    """Returns the rows in the order of their draws, told label by label."""
    ids = pq.read_table(folder / "vocabulary.parquet")["id"].to_pylist()
    cells = {(d.row, d.entity): d.cell for d in draw(folder, digest, seed=seed, checks=99)[1]}
    times, label = [], 0
    for row, keep in enumerate(pq.read_table(folder / "keep.parquet").to_pylist()):
        for klass in keep["classes"]:
            bits = random_key(seed, Purpose.AUDIT, int(digest, 16), label)
            u = ((bits >> 11) + 0.5) / 2**53
            weight = strata.table.weight[cells[row, ids[klass]]]
            times.append((-math.log(u) / weight, row))
            label += 1
    return [row for _, row in sorted(times)]


def test_the_order_is_that_of_keyed_random_times(selection, digest):
    strata, found = draw(selection, digest, seed=5, checks=99)
    assert [d.row for d in found] == slow_draws(selection, digest, 5, strata)


def test_more_checks_continue_the_same_list(selection, digest):
    _, all_of_them = draw(selection, digest, seed=1, checks=60)
    assert draw(selection, digest, seed=1, checks=7)[1] == all_of_them[:7]
    assert len({d.row for d in all_of_them}) == 60


def test_neither_batches_nor_pruning_change_the_draws(selection, digest, monkeypatch):
    _, found = draw(selection, digest, seed=2, checks=3)
    monkeypatch.setattr(strata_module, "_ROWS", 7)
    monkeypatch.setattr(module, "_MOST_HELD", 0)
    limits, calls = module._limits, []
    monkeypatch.setattr(module, "_limits", lambda *a: calls.append(a) or limits(*a))
    assert draw(selection, digest, seed=2, checks=3)[1] == found
    assert calls


def test_another_seed_and_another_selection_draw_otherwise(selection, digest, tmp_path):
    first = named(draw(selection, digest, seed=0, checks=20)[1])
    assert named(draw(selection, digest, seed=1, checks=20)[1]) != first
    assert named(draw(selection, "ab" * 32, seed=0, checks=20)[1]) != first


def test_every_label_comes_first_in_proportion_to_its_weight(selection, digest):
    firsts = Counter(draw(selection, digest, seed=s, checks=1)[1][0].cell for s in range(600))
    table = draw(selection, digest, seed=0, checks=1)[0].table
    expected = 600 * table.weight * table.labels
    drawn = np.array([firsts[cell] for cell in range(len(expected))])
    large = expected > 5
    chi2 = ((drawn - expected)[large] ** 2 / expected[large]).sum()
    assert chi2 < 3 * large.sum()
    assert drawn[expected == 0].sum() == 0


def test_bands_cut_entities_sources_and_scores(selection, digest):
    strata, _ = draw(selection, digest, seed=0, checks=1)
    found = {
        stratum.name: int(strata.table.labels[stratum.cells].sum()) for stratum in strata.all()
    }
    assert found.pop("all labels") == 60
    assert found == {
        "frequent entities, 36 to 36 images": 36,
        "entities in between, 18 to 18 images": 18,
        "long tail, 6 to 6 images": 6,
        "a.example": 40,
        "b.example": 20,
        **{name: n for name, n in found.items() if name.startswith("score")},
    }
    assert [n for name, n in found.items() if name.startswith("score")] == [30, 24, 6]


def test_the_long_tail_gets_nearly_half_of_the_draws(selection, digest):
    strata, _ = draw(selection, digest, seed=0, checks=1)
    drawn = strata.table.labels * strata.table.weight
    tail = next(s for s in strata.all() if s.name.startswith("long tail"))
    assert drawn.sum() == pytest.approx(1)
    assert drawn[tail.cells].sum() == pytest.approx(0.45)


def test_a_digest_does_not_depend_on_how_the_files_are_written(selection, digest, tmp_path):
    for name in ("keep.parquet", "vocabulary.parquet"):
        table = pq.read_table(selection / name)
        pq.write_table(table, tmp_path / name, row_group_size=7, compression="zstd")
    assert selection_digest(tmp_path) == digest
    keep = pq.read_table(tmp_path / "keep.parquet")
    pq.write_table(keep.slice(1), tmp_path / "keep.parquet")
    assert selection_digest(tmp_path) != digest
