import numpy as np
import pyarrow as pa

from openmofi.link.company import WIDTH
from openmofi.link.type_groups import NO_GROUP, kinds_of, pool_rare_kinds, unite_kinds


def mentions(kinds: dict[int, int], names: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Mentions of kinds, each with its own names, whose company is that of a habitat."""
    rng = np.random.default_rng(seed)
    company, kind, name = [], [], []
    for number, (one, habitat) in enumerate(kinds.items()):
        for i in range(names * 4):
            company.append(100 * habitat + rng.integers(0, 20, WIDTH))
            kind.append(one)
            name.append(1000 * number + i // 4)
    return np.array(company, np.int32), np.array(kind), np.array(name)


def test_the_kind_is_the_most_frequent_type():
    types = pa.array([["shoe", "shop"], ["shop"], [], ["shoe", "shop"], ["bag"]])
    kind, names = kinds_of(types)
    assert names == ["shop", "shoe", "bag"]
    assert kind.tolist() == [0, 0, 3, 0, 2]


def test_equally_frequent_types_are_in_order_of_their_names():
    assert kinds_of(pa.array([["b", "a"]]))[1] == kinds_of(pa.array([["a", "b"]]))[1]


def test_rare_kinds_of_a_source_are_one():
    kind, source = np.array([0, 1, 2, 1, 3]), np.array([0, 0, 0, 1, 1])
    found = pool_rare_kinds(kind, source, np.array([50, 3, 9, 0]))
    assert found.tolist() == [0, 4, 4, 5, 5]


def test_kinds_with_the_same_company_are_united_and_others_are_not():
    assert unite_kinds(*mentions({3: 0, 5: 1, 7: 0, 9: 1}, 20)) == {3: 0, 7: 0, 5: 1, 9: 1}


def test_a_kind_of_a_few_names_joins_the_group_whose_company_it_keeps():
    many, few = mentions({3: 0, 5: 1}, 30), mentions({8: 1}, 3, seed=1)
    together = [np.concatenate(pair) for pair in zip(many, few, strict=True)]
    together[2][-len(few[2]) :] += 10_000
    assert unite_kinds(*together) == {5: 0, 8: 0, 3: 1}


def test_the_order_of_mentions_does_not_matter():
    columns = mentions({3: 0, 5: 1, 7: 0}, 15)
    order = np.random.default_rng(1).permutation(len(columns[0]))
    assert unite_kinds(*(column[order] for column in columns)) == unite_kinds(*columns)


def test_a_name_counts_once_however_often_it_occurs():
    columns = mentions({3: 0, 5: 1, 7: 0}, 15)
    often = [np.concatenate([column, *([column[:4]] * 200)]) for column in columns]
    assert unite_kinds(*often) == unite_kinds(*columns)


def test_one_kind_is_one_group_and_none_is_none():
    assert unite_kinds(*mentions({4: 0}, 2)) == {4: 0}
    nothing = np.zeros(0, np.int64)
    assert unite_kinds(np.zeros((0, WIDTH), np.int32), nothing, nothing) == {}
    assert NO_GROUP == -1
