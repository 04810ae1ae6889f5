"""A model's directory -> how many classes it learnt to tell apart, from what was written with it.

model/entity_head/ids.json      `train` with the supervised loss: the rows of the class head
run/adapt.json                  `adapt`, unless it kept the encoder as it was
run/config.yaml                 `train` on names or descriptions of the entities of a selection
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from openmofi.model.class_rows import FOLDER, IDS

_ENTITY_TEXTS = {"name", "description"}


def classes_learnt(model: Path) -> int | None:
    """Returns the number of classes, or None if it is not known, as of models made elsewhere.

    Models that learnt from captions alone have none.
    """
    head, run = model / FOLDER / IDS, model.parent
    if (run / "adapt.json").is_file():
        card = json.loads((run / "adapt.json").read_text())
        return card["entities"] if card["adapted"] else None
    if head.is_file():
        return len(json.loads(head.read_text()))
    if not (run / "config.yaml").is_file():
        return None
    config = yaml.safe_load((run / "config.yaml").read_text())
    if not isinstance(config, dict) or not {"loss", "data"} <= config.keys():
        return None  # another program's
    vocabulary = Path(config["data"]) / "vocabulary.parquet"
    from_texts = config["loss"]["contrastive"] > 0 and _ENTITY_TEXTS & set(config["loss"]["text"])
    if not from_texts or not vocabulary.is_file():
        return None
    return pq.read_metadata(vocabulary).num_rows
