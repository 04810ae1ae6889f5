from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from openmofi.kb.ids import Ids, write_ids


def test_every_id_leads_to_its_row_and_no_other_does(tmp_path: Path):
    ids = ["Q10", "Q1", "ü", "", "Q100"]
    write_ids(tmp_path / "ids", [pa.array(ids[:2]), pa.array(ids[2:])])
    found = Ids(tmp_path / "ids", len(ids))
    assert found.rows(pa.array([*ids, "Q", "Q1000", "zz"])).tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert found.by_row.to_pylist() == ids


def test_old_ids_lead_to_where_they_went(tmp_path: Path):
    old = pa.array(["Q7", "Q8"]), np.array([1, 0])
    write_ids(tmp_path / "ids", [pa.array(["Q1", "Q2"])], old)
    found = Ids(tmp_path / "ids", 2)
    assert found.rows(pa.array(["Q8", "Q2", "Q7"])).tolist() == [0, 1, 1]
    assert found.by_row.to_pylist() == ["Q1", "Q2"]


@given(st.lists(st.text(max_size=4), unique=True), st.lists(st.text(max_size=4)))
def test_lookup_equals_a_dictionary(tmp_path_factory, ids, asked):
    folder = tmp_path_factory.mktemp("ids") / "ids"
    write_ids(folder, [pa.array(ids, pa.string())])
    known = {identifier: row for row, identifier in enumerate(ids)}
    found = Ids(folder, len(ids)).rows(pa.array([*ids, *asked], pa.string()))
    assert found.tolist() == [known.get(identifier, -1) for identifier in [*ids, *asked]]
