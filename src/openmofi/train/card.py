"""The model card of a trained model."""

from __future__ import annotations

import yaml

import openmofi
from openmofi.config import TrainSettings, as_dict
from openmofi.model import MofiModel
from openmofi.train.data import TrainData


def model_card(
    settings: TrainSettings, data: TrainData, model: MofiModel, scores: dict[str, float]
) -> str:
    """Returns README.md: what the model is, how it came about, how to load it."""
    recipe = yaml.safe_dump(as_dict(settings), sort_keys=False)
    measured = "".join(f"- {name}: {value:.4f}\n" for name, value in scores.items())
    return f"""---
library_name: transformers
{card_tags(zero_shot=settings.loss.contrastive > 0)}
---
# {settings.model.init or settings.model.preset}, trained with OpenMOFI {openmofi.__version__}

{_what(settings, model.dim)}, trained for
{settings.steps} steps of {settings.batch_size} on {len(data)} images of
{len(data.entity_ids)} entities. Load it with `openmofi.model.load_model(path)`, or with
`transformers.AutoModel` and `AutoTokenizer`; `preprocessor_config.json` says how images enter.

{"On images held out of the training data:" if measured else ""}
{measured}
```yaml
{recipe}```
"""


def card_tags(*, zero_shot: bool) -> str:
    """Returns the hub's tags; only who compared images with texts classifies by words."""
    more = ", zero-shot-image-classification" if zero_shot else ""
    return f"tags: [openmofi, image-feature-extraction{more}]"


def _what(settings: TrainSettings, dim: int) -> str:
    if settings.loss.contrastive > 0:
        return f"A dual encoder (images and texts into one space of {dim} dimensions)"
    if settings.model.init:
        return (
            f"An encoder of images into a space of {dim} dimensions (the texts, which stayed as "
            "they were, may fit them less than before)"
        )
    return (
        f"An encoder of images into a space of {dim} dimensions, which tells entities by its class "
        "rows; its text tower is untrained, so it is no zero-shot classifier"
    )
