"""Checkpoints: a path or hub id <-> MofiModel; AutoModel loads what is saved.

Hugging Face's format is read here, open_clip's in open_clip.py.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from openmofi.errors import InputError
from openmofi.model.mofi import MofiModel
from openmofi.model.open_clip import is_open_clip, load_open_clip
from openmofi.model.open_clip import revision as open_clip_revision
from openmofi.model.presets import mend_batch_norm
from openmofi.model.tokenizer import with_end_of_text
from openmofi.model.transform import Transform, from_processor_config, to_processor_config

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_model(source: str | Path, *, device: str = "auto", precision: str = "fp32") -> MofiModel:
    """Loads a dual encoder from a local directory, or from the hub by its id.

    Args:
        source: directory or hub id; for open_clip's checkpoints see `model/open_clip.py`.
        device: auto, cpu, cuda or cuda:N.
        precision: of the encoding (not of training): fp32, bf16, fp16, or auto for fp16 on a GPU.

    Raises:
        InputError: nothing usable is there, or it has no image and text tower.
    """
    name = str(source)
    if is_open_clip(name):
        return MofiModel(*load_open_clip(name), device, precision)
    _check_source(name)
    return MofiModel(*_load_hugging_face(name), device, precision)


def _load_hugging_face(name: str) -> tuple[Any, Any, Transform]:
    """Returns (network, tokenizer, transform)."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()  # their bars for one file say nothing
    try:
        _check_kind(name, transformers.AutoConfig.from_pretrained(name).model_type)
        network = transformers.AutoModel.from_pretrained(name, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        transform = _transform(name, network.config)
    except (OSError, ValueError, ImportError) as error:
        _refuse(name, error)
    if not hasattr(network, "get_image_features") or not hasattr(network, "get_text_features"):
        raise InputError(
            f"{name!r} holds a {type(network).__name__}, which does not encode both images and "
            "texts; pass a dual encoder such as openai/clip-vit-base-patch32."
        )
    assert tokenizer is not None
    text = getattr(network.config, "text_config", None)
    if text is not None and text.model_type == "clip_text_model":
        tokenizer = with_end_of_text(tokenizer, text, name)
    mend_batch_norm(network)
    return network.eval(), tokenizer, transform


def _transform(name: str, config: Any) -> Transform:
    """Returns how images enter; of a CLIP directory that does not say, as in MOFI's evaluation.

    What is published with MOFI's checkpoints uses no image processor but a function of its own:
    https://github.com/apple/ml-mofi/blob/main/eval/utils.py.
    """
    import transformers

    files = ("preprocessor_config.json", "processor_config.json")
    says = not Path(name).is_dir() or any((Path(name) / file).is_file() for file in files)
    if not says and config.model_type == "clip":
        print(
            f"{name} has no preprocessor_config.json: images enter as in MOFI's evaluation, "
            "resized without antialiasing; add that file if they should not.",
            file=sys.stderr,
        )
        return Transform(config.vision_config.image_size, resize="mofi", resample=2)
    processor, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    return from_processor_config(complete_processor_config(processor))


def complete_processor_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a preprocessor_config.json with what its class has for the settings left out."""
    import transformers

    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    processor = getattr(transformers, f"{kind}Pil", None)  # the other needs torchvision
    if processor is None:
        return config
    names = ("size", "crop_size", "default_to_square", "resample", "image_mean", "image_std")
    defaults = {name: getattr(processor, name, None) for name in names}
    found = {name: value for name, value in defaults.items() if value is not None}
    return {"do_center_crop": getattr(processor, "do_center_crop", None), **found, **config}


def _check_kind(name: str, kind: str) -> None:
    """Refuses networks whose images are not squares of pixels."""
    if kind == "siglip2":  # what transformers calls those of one resolution is siglip
        raise InputError(
            f"{name!r} is a SigLIP 2 NaFlex model, which takes patches of any shape; pass one of a "
            "fixed resolution, such as google/siglip2-base-patch16-224."
        )


def _refuse(name: str, error: Exception) -> NoReturn:
    text = str(error)
    # Without it, transformers may take a SentencePiece file for one of tiktoken's.
    if ("SentencePiece" in text and isinstance(error, ImportError)) or "`tiktoken` is" in text:
        raise InputError(
            f"The tokenizer of {name!r} needs the package sentencepiece; install it with: "
            "pip install sentencepiece protobuf."
        ) from error
    first_line = text.strip().splitlines()[0]
    raise InputError(f"Cannot load a model from {name!r}: {first_line}") from error


def hub_revision(name: str) -> str:
    """Returns the commit of a model of the hub, or "" if it is not known.

    Raises:
        InputError: there is no such model, or the hub cannot be reached.
    """
    import transformers

    if is_open_clip(name):
        return open_clip_revision(name)
    _check_source(name)
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        _refuse(name, error)
    return str(getattr(config, "_commit_hash", None) or "")


def _check_source(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(
                f"{name!r} has no config.json; pass a Hugging Face model directory, such as the "
                "model/ folder inside the output of `openmofi train`."
            )
    elif path.exists() or name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise InputError(
            f"There is no model directory {name!r}; pass a directory or a hub id such as "
            "openai/clip-vit-base-patch32."
        )


def save_model(
    model: MofiModel, out: Path, *, card: str, weights: dict[str, Any] | None = None
) -> None:
    """Writes a directory that AutoModel and AutoTokenizer load offline, with a model card.

    Args:
        model: the network, its tokenizer and its transform.
        out: the directory.
        card: its README.md.
        weights: name -> tensor, in place of the network's own.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    model.network.save_pretrained(out, state_dict=weights)
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the last call's padding is not a part of the tokenizer
        backend.no_padding()
        backend.no_truncation()
    model.tokenizer.save_pretrained(out)
    _use_lasting_class_name(out / "tokenizer_config.json")
    processor = json.dumps(to_processor_config(model.transform), indent=2)
    (out / "preprocessor_config.json").write_text(processor + "\n")
    (out / "README.md").write_text(card)


def _use_lasting_class_name(file: Path) -> None:
    """Names the general tokenizer as transformers 4 and 5 both know it; 5 writes its new name."""
    config = json.loads(file.read_text())
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
