"""The table of benchmarks, and what must agree with it."""

from typing import get_args

from openmofi.cli.evaluate import evaluate
from openmofi.evaluate.benchmarks import BENCHMARKS, CHOICES, DEFAULTS, LABELLED
from openmofi.evaluate.layouts import Dataset


def test_no_two_benchmarks_have_one_name():
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)


def test_the_help_names_the_benchmarks_and_says_that_the_first_four_are_the_default():
    said = "".join((evaluate.__doc__ or "").split())
    assert f"someof{','.join(CHOICES)}withcommas,orall" in said
    assert CHOICES[:4] == DEFAULTS
    assert "Thedefaultisthefirstfour" in said


def test_all_data_has_a_benchmark():
    layouts = {kind.layout for kind in get_args(Dataset)} | {*LABELLED, "gpr1200"}
    assert layouts == {layout for benchmark in BENCHMARKS for layout in benchmark.layouts}
