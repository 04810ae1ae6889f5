import pytest

from openmofi.config import TrainSettings, as_dict, override, parse_assignments
from openmofi.errors import SettingsError


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
