"""Hugging Face directories: a path or hub id <-> MofiModel; AutoModel loads what is saved."""

from __future__ import annotations

import json
import re
from pathlib import Path

from openmofi.errors import InputError
from openmofi.model.mofi import MofiModel
from openmofi.model.presets import mend_batch_norm
from openmofi.model.transform import from_processor_config, to_processor_config

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_model(source: str | Path, *, device: str = "auto", precision: str = "fp32") -> MofiModel:
    """Loads a dual encoder from a local directory, or from the hub by its id.

    Args:
        source: directory or hub id.
        device: auto, cpu, cuda or cuda:N.
        precision: of the encoding (not of training): fp32, bf16, fp16, or auto for fp16 on a GPU.

    Raises:
        InputError: nothing usable is there, or it has no image and text tower.
    """
    import torch
    import transformers

    name = str(source)
    _check_source(name)
    transformers.utils.logging.disable_progress_bar()  # their bars for one file say nothing
    try:
        network = transformers.AutoModel.from_pretrained(name, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        config, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError, ImportError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"Cannot load a model from {name!r}: {first_line}") from error
    if not hasattr(network, "get_image_features") or not hasattr(network, "get_text_features"):
        raise InputError(
            f"{name!r} holds a {type(network).__name__}, which does not encode both images and "
            "texts; pass a dual encoder such as openai/clip-vit-base-patch32."
        )
    assert tokenizer is not None
    mend_batch_norm(network)
    return MofiModel(network.eval(), tokenizer, from_processor_config(config), device, precision)


def hub_revision(name: str) -> str:
    """Returns the commit of a model of the hub, or "" if it is not known.

    Raises:
        InputError: there is no such model, or the hub cannot be reached.
    """
    import transformers

    _check_source(name)
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"Cannot load a model from {name!r}: {first_line}") from error
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


def save_model(model: MofiModel, out: Path, *, card: str) -> None:
    """Writes a directory that AutoModel and AutoTokenizer load offline, with a model card."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    model.network.save_pretrained(out)
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the last call's padding is no part of the tokenizer
        backend.no_padding()
        backend.no_truncation()
    model.tokenizer.save_pretrained(out)
    processor = json.dumps(to_processor_config(model.transform), indent=2)
    (out / "preprocessor_config.json").write_text(processor + "\n")
    (out / "README.md").write_text(card)
