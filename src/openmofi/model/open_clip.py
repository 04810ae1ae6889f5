"""open_clip checkpoints: a name or a directory -> (network, tokenizer, transform) for MofiModel.

Three forms: `open_clip:ViT-B-32/laion2b_s34b_b79k` (model/pretrained, as listed by its
`list_pretrained`), `open_clip:hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K`, and a directory with
open_clip_config.json. Needs the extra `open_clip` (https://github.com/mlfoundations/open_clip).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from torch import Tensor

from openmofi.errors import InputError
from openmofi.model.transform import OPENAI_MEAN, OPENAI_STD, Transform

PREFIX = "open_clip:"
CONFIG_FILE = "open_clip_config.json"
_HUB = "hf-hub:"
_FILTERS = {"bilinear": 2, "bicubic": 3, "random": 3}
"""PIL's number of each filter; `random` is for augmentation and means bicubic here."""


def is_open_clip(name: str) -> bool:
    """Returns whether open_clip loads a model: by its prefix, or its directory's only config."""
    folder = Path(name)
    if name.startswith(PREFIX):
        return True
    # Many checkpoints have both formats; transformers needs no extra package, nor does MobileCLIP.
    if (folder / "config.json").is_file() or is_fastvit(folder / CONFIG_FILE):
        return False
    return (folder / CONFIG_FILE).is_file()


def is_fastvit(config: Path) -> bool:
    """Says whether an open_clip_config.json is of a MobileCLIP that mobileclip_release.py reads."""
    try:
        vision = json.loads(config.read_text())["model_cfg"]["vision_cfg"]
        return str(vision["timm_model_name"]).startswith("fastvit_mci")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def parse_name(name: str) -> tuple[str, str | None]:
    """Returns (model, pretrained) in open_clip's own words.

    Raises:
        InputError: the name has none of the three forms.
    """
    if not name.startswith(PREFIX):
        return f"local-dir:{name}", None
    given = name.removeprefix(PREFIX)
    if given.startswith(_HUB) and "/" in given:
        return given, None
    model, _, pretrained = given.rpartition("/")
    if not model or not pretrained or given.startswith((".", "/", "~", _HUB)):
        raise InputError(
            f"There is no open_clip model {name!r}; expected open_clip:MODEL/PRETRAINED such as "
            "open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:hf-hub:OWNER/NAME, or a directory "
            f"with {CONFIG_FILE}."
        )
    return model, pretrained


def load_open_clip(name: str) -> tuple[Any, Any, Transform]:
    """Loads the two towers, the tokenizer, and the transform of images.

    Args:
        name: see `parse_name`.

    Raises:
        InputError: the package or the model is missing, or its images are not square.
    """
    model, pretrained = parse_name(name)
    open_clip = import_open_clip(name)
    try:
        # openai's weights need another activation than the model of the same name.
        tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
        network = open_clip.create_model(
            model,
            pretrained=pretrained,
            require_pretrained=True,
            force_quick_gelu=bool(tag.get("quick_gelu")),
        )
        tokenizer = OpenClipTokenizer(open_clip.get_tokenizer(model))
        dim = int(open_clip.get_model_config(model)["embed_dim"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        _refuse(name, error)
    transform = transform_of(network.visual.preprocess_cfg)
    wrapped = OpenClipNetwork(network, dim, tokenizer.context_length)
    return wrapped.eval(), tokenizer, transform


def import_open_clip(name: str) -> Any:
    """Imports the package.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        return import_module("open_clip")
    except ModuleNotFoundError as error:
        raise InputError(
            f"The model {name!r} needs the package {error.name}; install it with: "
            "pip install 'openmofi[open_clip]'."
        ) from None
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit the torch
        raise InputError(
            f"The model {name!r} needs the package open_clip, which cannot be imported "
            f"({_first_line(error)}); install the torchvision that belongs to your torch."
        ) from error


def revision(name: str) -> str:
    """Returns an identifier of the weights behind a name, which must not be a directory.

    Raises:
        InputError: there is no such model, or the hub cannot be reached.
    """
    model, pretrained = parse_name(name)
    open_clip = import_open_clip(name)
    try:
        if model.startswith(_HUB):
            from huggingface_hub import hf_hub_download

            # .../snapshots/<commit>/open_clip_config.json
            return Path(hf_hub_download(model.removeprefix(_HUB), CONFIG_FILE)).parent.name
        tag = open_clip.get_pretrained_cfg(model, pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        _refuse(name, error)
    # Its URL holds a hash of the weights, or names their repository.
    return hashlib.sha256(json.dumps(tag, sort_keys=True).encode()).hexdigest()[:16]


def _refuse(name: str, error: Exception) -> NoReturn:
    why = _first_line(error).rstrip(".")
    raise InputError(f"Cannot load a model from {name!r}: {why}.") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def transform_of(config: dict[str, Any]) -> Transform:
    """Returns the transform that a preprocess_cfg describes.

    Args:
        config: size, mean, std, interpolation and resize_mode, as in open_clip's `PreprocessCfg`.

    Raises:
        InputError: it pads images, or does not make them square.
    """
    size, how = config.get("size", 224), config.get("resize_mode") or "shortest"
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if height != width or how not in ("shortest", "squash"):
        raise InputError(
            f"The open_clip model resizes images to {width} x {height} by {how!r}; expected a "
            "square by 'shortest' or 'squash', so pass another model."
        )
    return Transform(
        size=int(height),
        resample=_FILTERS[config.get("interpolation") or "bicubic"],
        keep_aspect=how == "shortest",
        mean=tuple(map(float, config.get("mean") or OPENAI_MEAN)),
        std=tuple(map(float, config.get("std") or OPENAI_STD)),
        crop_to_nearest=True,
    )


class OpenClipNetwork(torch.nn.Module):
    """An open_clip model with the methods of a Hugging Face dual encoder."""

    def __init__(self, model: Any, dim: int, context_length: int):
        super().__init__()
        self.model = model
        text = SimpleNamespace(model_type="open_clip", max_position_embeddings=context_length)
        self.config = SimpleNamespace(model_type="open_clip", projection_dim=dim, text_config=text)

    @property
    def logit_scale(self) -> Tensor:
        """Log of the inverse temperature."""
        return self.model.logit_scale

    def get_image_features(self, *, pixel_values: Tensor) -> Tensor:
        """Returns unnormalised features of pixels [n, 3, size, size]."""
        return self.model.encode_image(pixel_values)

    def get_text_features(self, *, input_ids: Tensor) -> Tensor:
        """Returns unnormalised features of token ids [n, context]."""
        return self.model.encode_text(input_ids, normalize=False)  # CoCa's default is True

    def save_pretrained(self, folder: Any) -> NoReturn:
        """Refuses to save, because transformers could not load the result.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"An open_clip model cannot be saved as a Hugging Face directory {str(folder)!r}; "
            "start from a checkpoint in that format, such as openai/clip-vit-base-patch32."
        )


class OpenClipTokenizer:
    """An open_clip tokenizer with transformers' call signature; always fills up the context."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.context_length = int(tokenizer.context_length)
        self.model_max_length = self.context_length

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, Tensor]:
        """Returns input_ids [n, context]."""
        return {"input_ids": self._tokenizer(list(texts), context_length=self.context_length)}
