from dataclasses import is_dataclass
from math import inf, nan

import pytest
from msgspec.inspect import type_info

from openmofi import config
from openmofi.config import (
    KBSettings,
    LabelSettings,
    LinkSettings,
    ModelSettings,
    OptimSettings,
    SelectSettings,
    ServeSettings,
    TrainSettings,
    as_dict,
    override,
    parse_assignments,
)
from openmofi.errors import SettingsError


def _bounded_fields():
    """Returns every settings class, bounded field and bounded type, as msgspec reads them."""
    return [
        pytest.param(settings, field.name, kind, id=f"{settings.__name__}-{field.name}")
        for settings in filter(is_dataclass, vars(config).values())
        for field in type_info(settings).fields
        for kind in getattr(field.type, "types", [field.type])  # of `Count | None`, two
        if {getattr(kind, bound, None) for bound in ("gt", "ge", "lt", "le")} != {None}
    ]


def test_override_changes_only_what_is_named():
    changed = override(TrainSettings(), {"optim": {"learning_rate": 0.5}, "steps": 7})
    assert (changed.optim.learning_rate, changed.steps) == (0.5, 7)
    assert changed.optim.weight_decay == TrainSettings().optim.weight_decay


@pytest.mark.parametrize(
    ("text", "expected"),
    [("steps=7", 7), ("batch_size=16", 16)],
)
def test_assignments_reach_top_level_settings(text, expected):
    changed = override(TrainSettings(), parse_assignments([text]))
    assert getattr(changed, text.split("=")[0]) == expected


def test_a_number_without_a_dot_is_still_a_number():
    # YAML reads 1e-3 as text
    changed = override(TrainSettings(), parse_assignments(["optim.learning_rate=1e-3"]))
    assert changed.optim.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optm": {}}, "did you mean optim"),
        ({"optim": {"learning_rat": 1}}, "did you mean optim.learning_rate"),
        ({"steps": "many"}, "'steps' cannot be 'many'"),
        ({"model": {"preset": "b17"}}, "cannot be 'b17'"),
        ({"optim": 3}, "group of settings"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(changes, message):
    with pytest.raises(SettingsError, match=message):
        override(TrainSettings(), changes)


def test_settings_survive_the_way_through_plain_data():
    assert override(TrainSettings(), as_dict(TrainSettings())) == TrainSettings()


@pytest.mark.parametrize(("settings", "name", "kind"), _bounded_fields())
def test_a_number_outside_its_bounds_is_refused(settings, name, kind):
    assert kind.gt is kind.lt is None  # the settings check ge and le alone
    most = inf if kind.le is None else kind.le
    expected = f"at least {kind.ge:g}" if most == inf else f"from {kind.ge:g} to {most:g}"
    for value in (kind.ge - 1, -inf, nan, *((most * 2, inf) if most < inf else ())):
        with pytest.raises(SettingsError) as refused:
            settings(**{name: value})
        assert str(refused.value) == f"Setting {name!r} cannot be {value!r}; expected {expected}."
    for value in (kind.ge, most):
        assert getattr(settings(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        (KBSettings, {"alias_weight": 1001}, "from 0 to 1000"),
        (KBSettings, {"max_entities": 0}, "at least 1"),
        (LinkSettings, {"max_candidates": 31}, "from 1 to 30"),
        (LabelSettings, {"encoders": -1}, "at least 0"),
        (LabelSettings, {"rank": -1}, "at least 0"),
        (LabelSettings, {"rank": 4, "world_size": 4}, "from 0 to 3"),
        (LabelSettings, {"precision": "fp8"}, "auto, fp32, bf16 or fp16"),
        (SelectSettings, {"order": "text"}, "joint, text-first or caption-match"),
        (SelectSettings, {"max_text_area": 1.5}, "from 0 to 1"),
        (ModelSettings, {"vocab_size": 259}, "at least 260"),
        (OptimSettings, {"beta2": 1.0}, "from 0 to 1"),
        (TrainSettings, {"epochs": nan}, "from 1e-09 to 1e+09"),
        (ServeSettings, {"shutdown": 3601}, "from 0 to 3600"),
    ],
)
def test_a_refused_value_comes_with_those_expected(settings, values, expected):
    name, value = next(iter(values.items()))
    with pytest.raises(SettingsError) as refused:
        settings(**values)
    assert str(refused.value) == f"Setting {name!r} cannot be {value!r}; expected {expected}."
