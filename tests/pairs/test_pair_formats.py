"""The table of formats: each suffix is one format's, and rows are asked only of tables."""

import pytest

from openmofi.pairs import ImageReader
from openmofi.pairs.formats import FORMATS, kind_of


def test_each_suffix_belongs_to_one_format():
    suffixes = [suffix for form in FORMATS.values() for suffix in form.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert kind_of("a/b.PARQUET") is None
    assert {kind_of(f"a/b{suffix}") for suffix in suffixes} == set(FORMATS)


def test_a_tar_has_no_rows_with_images(tmp_path):
    with pytest.raises(OSError, match="no rows with images"):
        ImageReader(tmp_path).read_place("a.tar", -1, 0, "row:0")
