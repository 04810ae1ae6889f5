"""How many classes a model learnt, from the files of `train` and `adapt`."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from openmofi.config import TrainSettings, as_dict
from openmofi.evaluate.classes_learnt import classes_learnt


@pytest.fixture
def model(tmp_path):
    """Returns run/model of a run on a selection of three classes."""
    data = tmp_path / "select"
    data.mkdir()
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), data / "vocabulary.parquet")
    (tmp_path / "run" / "model").mkdir(parents=True)
    return tmp_path / "run" / "model"


def _config(model, **loss):
    """Writes the config.yaml of a run with another loss."""
    settings = as_dict(TrainSettings()) | {"data": str(model.parent.parent / "select")}
    settings["loss"] |= loss
    (model.parent / "config.yaml").write_text(yaml.safe_dump(settings))


def test_a_class_head_says_it(model):
    (model / "entity_head").mkdir()
    (model / "entity_head/ids.json").write_text('["a", "b"]')
    _config(model)
    assert classes_learnt(model) == 2


@pytest.mark.parametrize(
    ("loss", "number"),
    [
        ({"text": ["name", "caption"]}, 3),
        ({"text": ["description"]}, 3),
        ({"text": ["caption"]}, None),
        ({"text": ["name"], "contrastive": 0.0}, None),
    ],
    ids=["names", "descriptions", "captions", "not contrastive"],
)
def test_a_run_without_a_head_learnt_the_classes_whose_texts_it_saw(model, loss, number):
    _config(model, **({"supervised": 0.0} | loss))
    assert classes_learnt(model) == number


@pytest.mark.parametrize(("adapted", "number"), [(True, 40), (False, None)])
def test_adapt_learnt_classes_unless_it_kept_the_encoder(model, adapted, number):
    card = {"adapted": adapted, "entities": 40}
    (model.parent / "adapt.json").write_text(json.dumps(card))
    assert classes_learnt(model) == number


def test_nothing_is_known_of_models_from_elsewhere_or_whose_data_is_gone(model):
    assert classes_learnt(model) is None
    (model.parent / "config.yaml").write_text("model: of another program")
    assert classes_learnt(model) is None
    _config(model, supervised=0.0)
    (model.parent.parent / "select/vocabulary.parquet").unlink()
    assert classes_learnt(model) is None
