"""The model card of a trained model."""

from __future__ import annotations

import yaml

import openmofi
from openmofi.config import TrainSettings, as_dict
from openmofi.model import MofiModel
from openmofi.model.dual import DualModel
from openmofi.train.data import TrainData
from openmofi.train.wise_ft import WeightAverage


def model_card(
    settings: TrainSettings,
    data: TrainData,
    model: MofiModel,
    scores: dict[str, float],
    choice: WeightAverage | None = None,
) -> str:
    """Returns README.md: what the model is, how it was trained, how to load it."""
    if settings.loss.contrastive > 0:
        what = f"A dual encoder (images and texts into one space of {model.dim} dimensions)"
    elif not model.reads_texts:
        what = f"An encoder of images into a space of {model.dim} dimensions"
    elif settings.model.init:
        what = (
            f"An encoder of images into a space of {model.dim} dimensions (the texts, which stayed "
            "as they were, may fit them less than before)"
        )
    else:
        what = (
            f"An encoder of images into a space of {model.dim} dimensions, which recognises "
            "entities by its class rows; its text tower is untrained, so it is no zero-shot "
            "classifier"
        )
    recipe = yaml.safe_dump(as_dict(settings), sort_keys=False)
    averaged = ""
    if choice is not None:
        averaged = (
            f"The weights lie {choice.share:.0%} of the way from those that training began with to "
            "its last ones, where held-out images were retrieved best (WiSE-FT, arXiv 2109.01903)."
        )
    measured = "".join(f"- {name}: {value:.4f}\n" for name, value in scores.items())
    return f"""---
library_name: {library(model)}
{card_tags(zero_shot=settings.loss.contrastive > 0)}
---
# {settings.model.init or settings.model.preset}, trained with OpenMOFI {openmofi.__version__}

{what}, trained for
{settings.steps} steps of {settings.batch_size} on {len(data)} images of
{len(data.entity_ids)} entities. {_loading(model)}
`preprocessor_config.json` states how to prepare images. {averaged}

{"On images held out of the training data:" if measured else ""}
{measured}
```yaml
{recipe}```
"""


def library(model: MofiModel) -> str:
    """Returns the name of the library that knows a model's network."""
    return "openmofi" if isinstance(model.network, DualModel) else "transformers"


def _loading(model: MofiModel) -> str:
    with_us = "Load it with `openmofi.model.load_model(path)`"
    if library(model) == "transformers":
        return f"{with_us}, or with\n`transformers.AutoModel` and `AutoTokenizer`;"
    return (
        f"{with_us};\nits network is none of transformers' own, whose `AutoModel` loads it after "
        "`import openmofi.model`;"
    )


def card_tags(*, zero_shot: bool) -> str:
    """Returns the hub's tags; only models trained on texts can classify by words."""
    more = ", zero-shot-image-classification" if zero_shot else ""
    return f"tags: [openmofi, image-feature-extraction{more}]"
