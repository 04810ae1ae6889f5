"""The merge of sources against a slow one in plain Python, and under a small memory limit."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openmofi.config import KBSettings
from openmofi.kb import build_kb
from openmofi.kb.merge import sorting
from openmofi.kb.text import canonical
from records import read_dump
from wikidata import content, item, write_dump

pytestmark = pytest.mark.slow


def things(draw_number: int) -> st.SearchStrategy[list[dict]]:
    """Items of a few ids and names, so that many are equal."""
    terms = st.sampled_from(["Ann", "ann", "Ünn", "B b", "C", "😀"])
    aliases = st.lists(terms, max_size=3).map(lambda names: {"en": [{"value": n} for n in names]})
    one = st.builds(
        lambda number, label, sites, aliases, text: item(
            number, label, sites=sites, aliases=aliases, descriptions={"en": {"value": text}}
        ),
        st.integers(1, draw_number),
        terms,
        st.integers(1, 4),
        aliases,
        st.sampled_from(["", "one", "other"]),
    )
    return st.lists(one, min_size=1, max_size=8)


def slow_merge(paths: list[Path], alias_weight: float) -> tuple[list, set]:
    """Returns (id, label, description, prior) in order of rows, and the rows of names."""
    entities: dict[str, dict] = {}
    for path in paths:
        seen = set()
        for record in read_dump(path, KBSettings()):
            if record.id in seen:
                continue
            seen.add(record.id)
            entity = entities.setdefault(
                record.id,
                {"label": record.label, "text": "", "prior": record.popularity + 1, "names": {}},
            )
            entity["text"] = entity["text"] or record.description
            for raw, _, kind in record.names:
                share = alias_weight if kind == "alias" else 1
                if canonical(raw) and share > entity["names"].get(canonical(raw), ("", 0))[1]:
                    entity["names"][canonical(raw)] = raw, share
    ranked = sorted(entities.items(), key=lambda pair: -pair[1]["prior"])
    names = {
        (key, raw, row, share * e["prior"])
        for row, (_, e) in enumerate(ranked)
        for key, (raw, share) in e["names"].items()
    }
    return [(i, e["label"], e["text"], e["prior"]) for i, e in ranked], names


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(things(5), min_size=1, max_size=3))
def test_merging_equals_the_slow_way(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("merge")
    paths = [write_dump(folder / f"{i}.json", *items) for i, items in enumerate(sources)]
    build_kb(paths, out=folder / "kb", settings=KBSettings(alias_weight=0.25))
    entities, names = slow_merge(paths, 0.25)
    columns = ["id", "label", "description", "prior"]
    table = pq.read_table(folder / "kb" / "entities.parquet", columns=columns)
    assert [tuple(row.values()) for row in table.to_pylist()] == entities
    found = pq.read_table(folder / "kb" / "names.parquet").to_pylist()
    assert {(n["key"], n["raw"], n["entity"], n["weight"]) for n in found} == names
    order = [(n["key"].encode(), -n["weight"], n["entity"]) for n in found]
    assert order == sorted(order)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "c.csv"
    rows = (
        f"X{i},name {i * 7919 % 90001} {i % 13},{i} a|the {i} b,{'long ' * 12}{i}\n"
        for i in range(120_000)
    )
    path.write_text("id,name,aliases,description\n" + "".join(rows))
    return path


def test_little_memory_gives_the_same_through_the_disk(tmp_path, large, monkeypatch):
    build_kb(large, out=tmp_path / "much")
    monkeypatch.setattr(sorting, "MEMORY", "64MB")
    build_kb(large, out=tmp_path / "little")
    assert content(tmp_path / "much") == content(tmp_path / "little")


def test_batches_are_cut_between_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(sorting, "BATCH_ROWS", 3)
    same_name = write_dump(tmp_path / "d.json", *(item(i, "one name") for i in range(1, 40)))
    build_kb(same_name, out=tmp_path / "kb")
    table = pq.read_table(tmp_path / "kb" / "names.parquet")
    assert table["entity"].to_pylist() == list(range(39))
