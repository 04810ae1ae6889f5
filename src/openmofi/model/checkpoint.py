"""Checkpoints: a path or hub id <-> MofiModel; AutoModel loads what is saved.

Hugging Face's format is read here, open_clip's in open_clip.py, MobileCLIP's in
mobileclip_release.py.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from shutil import copyfile
from typing import Any

from openmofi.errors import InputError
from openmofi.model import efficientnet_lite  # noqa: F401  (its class, for AutoModel)
from openmofi.model.dual import DualModel
from openmofi.model.mobileclip_release import is_release, load_release
from openmofi.model.mobileclip_release import revision as release_revision
from openmofi.model.mobileone import has_branches, merge_branches
from openmofi.model.mofi import MofiModel
from openmofi.model.onnx_encoder import onnx_parts
from openmofi.model.open_clip import is_open_clip, load_open_clip
from openmofi.model.open_clip import revision as open_clip_revision
from openmofi.model.presets import mend_batch_norm
from openmofi.model.sides import (
    EncoderSide,
    check_complete,
    image_encoder,
    is_dual,
    join,
    load_text_side,
    no_load_report,
    onnx_side,
    open_onnx,
    refuse_model,
    width_of,
)
from openmofi.model.tokenizer import with_end_of_text
from openmofi.model.transform import Transform, from_processor_config, to_processor_config

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_model(
    source: str | Path,
    *,
    device: str = "auto",
    precision: str = "fp32",
    to_train: bool = False,
) -> MofiModel:
    """Loads an encoder from a local directory, or from the hub by its id.

    A dual encoder reads images and texts. An image encoder (DINOv2, ViT, ConvNeXt, an ONNX file)
    becomes a model that reads images alone; `openmofi pair` adds the texts.

    Args:
        source: directory, hub id, or .onnx file with a preprocessor_config.json beside it; for
            open_clip's checkpoints see `model/open_clip.py`, for MobileCLIP's
            `model/mobileclip_release.py`.
        device: auto, cpu, cuda or cuda:N.
        precision: of the encoding (not of training): fp32, bf16, fp16, or auto for the fastest on
            this device, see `precision.dtype_of`.
        to_train: whether to keep the branches of a released MobileCLIP, which are otherwise merged.

    Raises:
        InputError: nothing usable is there, or it has no image side.
    """
    name = str(source)
    if is_release(name):
        return MofiModel(*load_release(name, merged=not to_train), device, precision)
    if is_open_clip(name):
        return MofiModel(*load_open_clip(name), device, precision)
    if name.endswith(".onnx"):
        return MofiModel(*_load_onnx(Path(name)), device, precision)
    _check_source(name)
    return MofiModel(*_load_hugging_face(name), device, precision)


def load_text_encoder(
    source: str | Path, *, device: str = "auto", precision: str = "fp32"
) -> MofiModel:
    """Loads what encodes texts: a text encoder, or a dual encoder, of which the text side is used.

    Args:
        source: directory or hub id; for how its vectors are pooled see `sides.load_text_side`.
        device: auto, cpu, cuda or cuda:N.
        precision: fp32, bf16, fp16, or auto, see `load_model`.

    Raises:
        InputError: nothing usable is there, or it reads images alone.
    """
    name = str(source)
    if is_open_clip(name) or is_release(name):
        return load_model(name, device=device, precision=precision)
    if not (Path(name) / "modules.json").is_file():  # which may have its config.json in a folder
        _check_source(name)
    if is_dual(name):
        model = load_model(name, device=device, precision=precision)
        model.check_reads_texts()
        return model
    return text_model(load_text_side(name), device=device, precision=precision)


def text_model(side: EncoderSide, *, device: str = "auto", precision: str = "fp32") -> MofiModel:
    """Returns a text side alone, ready for use; it has no maps and reads no images."""
    network = join(None, side, dim=side.encoder.config.hidden_size)
    return MofiModel(network.eval(), side.reads, Transform(1), device, precision)


def _load_hugging_face(name: str) -> tuple[Any, Any, Transform]:
    """Returns (network, tokenizer, transform); the tokenizer is None where it reads no texts."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()  # their bars for one file say nothing
    try:
        _check_kind(name, transformers.AutoConfig.from_pretrained(name).model_type)
        with no_load_report():
            network, info = transformers.AutoModel.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True
            )
        if isinstance(network, DualModel):
            check_complete(name, network, info["missing_keys"])
            open_onnx(network, Path(name))
        elif not hasattr(network, "get_image_features"):
            network = _image_alone(name, network, sorted(info["missing_keys"]))
        transform = _transform(name, network.config)
        tokenizer = None
        if not isinstance(network, DualModel) or network.reads_texts:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        refuse_model(name, error)
    text = getattr(network.config, "text_config", None)
    if text is not None and text.model_type in ("clip_text_model", "mobileclip_text"):
        tokenizer = with_end_of_text(tokenizer, text, name)
    mend_batch_norm(network)
    return network.eval(), tokenizer, transform


def _image_alone(name: str, network: Any, missing: list[str]) -> DualModel:
    """Returns an image encoder as a network without a text side.

    Raises:
        InputError: it is not an image encoder.
    """
    if network.main_input_name != "pixel_values":
        raise InputError(
            f"{name!r} holds a {type(network).__name__}, which does not encode images; pass a dual "
            "encoder such as openai/clip-vit-base-patch32, an image encoder such as "
            "facebook/dinov2-base, or what `openmofi pair` made of an image and a text encoder."
        )
    encoder, pooling = image_encoder(network, missing, name)
    transform = _transform(name, network.config)
    side = EncoderSide(encoder, pooling, (), transform)
    joined = join(side, None, dim=width_of(encoder, pooling, transform))
    joined.name_or_path = name  # for messages
    return joined


def _load_onnx(file: Path) -> tuple[Any, None, Transform]:
    """Returns (network, None, transform) of an image encoder in an ONNX file.

    Raises:
        InputError: the file or the description of its input is missing.
    """
    if not file.is_file():
        raise InputError(f"There is no file {str(file)!r}; pass an .onnx file or a directory.")
    config = file.parent / "preprocessor_config.json"
    if not config.is_file():
        raise InputError(
            f"{str(config)!r} is missing; {file.name} needs it beside it to know the size and the "
            "normalisation of its images (Hugging Face's format)."
        )
    processor = json.loads(config.read_text())
    side = onnx_side(file, from_processor_config(complete_processor_config(processor)))
    network = join(side, None, dim=side.encoder.config.hidden_size)
    return network.eval(), None, side.reads


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
    names = (
        *("size", "crop_size", "crop_pct", "default_to_square", "resample", "image_mean"),
        *("image_std", "rescale_offset", "include_top", "do_flip_channel_order"),
    )
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


def hub_revision(name: str) -> str:
    """Returns the commit of a model of the hub, or "" if it is not known.

    Raises:
        InputError: there is no such model, or the hub cannot be reached.
    """
    import transformers

    if is_release(name):
        return release_revision(name)
    if is_open_clip(name):
        return open_clip_revision(name)
    _check_source(name)
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        refuse_model(name, error)
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

    Branches that only training needs are merged.

    Args:
        model: the network, its tokenizer and its transform.
        out: the directory.
        card: its README.md.
        weights: name -> tensor, in place of the network's own.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    network = model.network
    if has_branches(network):
        network, weights = merge_branches(network, weights), None
    network.save_pretrained(out, state_dict=weights)
    for name, part in onnx_parts(model.network).items():
        if part.file is not None and part.file.resolve() != (out / name).resolve():
            copyfile(part.file, out / name)
    processor = json.dumps(to_processor_config(model.transform), indent=2)
    (out / "preprocessor_config.json").write_text(processor + "\n")
    (out / "README.md").write_text(card)
    if not model.reads_texts:
        return
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the last call's padding is not a part of the tokenizer
        backend.no_padding()
        backend.no_truncation()
    model.tokenizer.save_pretrained(out)
    _use_lasting_class_name(out / "tokenizer_config.json")


def _use_lasting_class_name(file: Path) -> None:
    """Names the general tokenizer as transformers 4 and 5 both know it; 5 writes its new name."""
    config = json.loads(file.read_text())
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
