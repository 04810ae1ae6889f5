"""Released MobileCLIP and MobileCLIP2 checkpoints -> (network, tokenizer, transform).

A .pt file, a folder with one, a folder with open_clip_config.json, or the hub's id:
apple/MobileCLIP-S0 to -S4, apple/MobileCLIP2-S0, -S2, -S3 and -S4, and their open_clip forms, such
as apple/MobileCLIP-S1-OpenCLIP and timm/MobileCLIP2-S0-OpenCLIP. They hold the branches of
training. Two namings are in use: Apple's (image_encoder.model.patch_embed.0.rbr_conv.0 ...) and
that of timm and open_clip (visual.trunk.stem.0.conv_kxk.0 ...). Both become ours here, and the
numbers of the configuration are read off the weights.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openmofi.errors import InputError
from openmofi.model.mobileclip_image import MobileClipImageConfig
from openmofi.model.mobileclip_text import MobileClipTextConfig
from openmofi.model.mobileone import merge_branches
from openmofi.model.open_clip import CONFIG_FILE, is_fastvit, transform_of
from openmofi.model.presets import dual_of_towers
from openmofi.model.tokenizer import with_end_of_text
from openmofi.model.transform import OPENAI_MEAN, OPENAI_STD, Transform

TOKENIZER = "openai/clip-vit-base-patch32"
"""Whose tokenizer MobileCLIP uses, where none lies beside the weights."""
_HUB = re.compile(r"(apple|timm)/MobileCLIP2?-[\w-]+")
_OPEN_CLIP = "-OpenCLIP"
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HEAD = 64
"""Numbers of an attention head of the text towers."""
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)

_COMMON = (
    (r"\.(rbr_conv|conv_kxk)\.0\.", ".full."),
    (r"\.(rbr_scale|conv_scale)\.", ".point."),
    (r"\.(rbr_skip|identity)\.", ".skip."),
    (r"\.bn\.", ".norm."),
    (r"\.gamma$", ""),
    (r"\.token_mixer\.mixer\.", ".mixer.mixer."),
    (r"\.token_mixer\.norm\.skip\.", ".mixer.norm."),
    (r"\.token_mixer\.layer_scale$", ".mixer.scale"),
    (r"\.(convffn|mlp)\.conv\.", ".ffn.depthwise."),
    (r"\.(convffn|mlp)\.fc1\.", ".ffn.widen."),
    (r"\.(convffn|mlp)\.fc2\.", ".ffn.narrow.conv."),
    (r"\.layer_scale(_2)?$", ".ffn.narrow.scale"),
)
"""(pattern, replacement) of blocks that both towers have."""
_IMAGE = (
    *_COMMON,
    (r"\.(patch_embed|stem)\.(\d)\.", r".stem.\2.conv."),
    (r"\.token_mixer\.qkv\.", ".qkv."),
    (r"\.token_mixer\.proj\.", ".out.conv."),
    (r"\.layer_scale_1$", ".out.scale"),
    (r"\.proj\.0\.(lkb_origin|large_conv)\.", ".conv.large."),
    (r"\.proj\.0\.small_conv\.", ".conv.small."),
    (r"\.proj\.0\.se\.", ".squeeze."),
    (r"\.proj\.1\.", ".mix.conv."),
    (r"\.(pe|pos_enc)\.", ".conv."),
    (r"\.(conv_exp|final_conv)\.se\.", ".last.squeeze."),
    (r"\.(conv_exp|final_conv)\.", ".last.conv."),
    (r"\.squeeze\.fc1\.", ".squeeze.reduce."),
    (r"\.squeeze\.fc2\.", ".squeeze.expand."),
    (r"\.head\.proj$", ".projection.weight"),
    (r"\.head\.fc\.", ".projection."),
)
_TEXT = (
    *_COMMON,
    (r"\.(embedding_layer|token_embedding)\.", ".token_embedding."),
    (r"\.positional_embedding(\.pos_embed\.pos_embed)?$", ".position_embedding"),
    (r"\.transformer\.(resblocks\.)?(\d+)\.", r".layers.\2."),
    (r"\.(pre_norm_mha\.0|ln_1)\.", ".norm1."),
    (r"\.(pre_norm_mha\.1\.qkv_proj\.|attn\.in_proj_)", ".qkv."),
    (r"\.(pre_norm_mha\.1|attn)\.out_proj\.", ".out."),
    (r"\.(pre_norm_ffn\.0|ln_2)\.", ".norm2."),
    (r"\.(pre_norm_ffn\.1|mlp\.c_fc)\.", ".widen."),
    (r"\.(pre_norm_ffn\.4|mlp\.c_proj)\.", ".narrow."),
    (r"\.(final_layer_norm|ln_final)\.", ".norm."),
    (r"\.(projection_layer|text_projection)$", ".projection.weight"),
)
_TURNED = re.compile(r"(head\.proj|projection_layer|text_projection)$")
"""Projections that are kept as [features in, features out]."""
_IMAGE_TOWER = re.compile(r"(image_encoder\.model|visual\.trunk)\.")
_TEXT_TOWER = re.compile(r"text(_encoder)?\.")
_BLOCK = re.compile(
    r"(?:network\.(\d+)\.(?:(\d+)\.)?|stages\.(\d+)\.(downsample|pos_emb|blocks)\.(?:(\d+)\.)?)"
)
"""Where an image block stands: Apple counts all, timm the blocks of each stage."""


def is_release(name: str) -> bool:
    """Says whether a name is that of a released checkpoint."""
    path = Path(name)
    if not path.is_dir():
        return name.endswith(".pt") or (not path.exists() and bool(_HUB.fullmatch(name)))
    if (path / "model.safetensors").is_file():
        return False
    return any(path.glob("mobileclip*.pt")) or is_fastvit(path / CONFIG_FILE)


def load_release(name: str, *, merged: bool) -> tuple[Any, Any, Transform]:
    """Loads a released checkpoint.

    Args:
        name: see above.
        merged: whether the branches of training are merged.

    Raises:
        InputError: it is missing or damaged, or of another network.
    """
    file, transform = _find(name)
    network = network_of(_read(file), name)
    tokenizer = _tokenizer(file.parent, network.config.text_config, name)
    if transform is None:
        transform = _transform_of(network.config.vision_config)
    return merge_branches(network) if merged else network.eval(), tokenizer, transform


def revision(name: str) -> str:
    """Returns the commit of a checkpoint of the hub.

    Raises:
        InputError: there is no such model, or the hub cannot be reached.
    """
    return _find(name)[0].parent.name  # .../snapshots/<commit>/mobileclip_s0.pt


def _find(name: str) -> tuple[Path, Transform | None]:
    """Returns the file of weights, and how images enter if an open_clip_config.json says so.

    Raises:
        InputError: there is no such file.
    """
    path = Path(name)
    if path.is_dir():
        found = [*path.glob("mobileclip*.pt"), *(path / file for file in _OPEN_CLIP_WEIGHTS)]
        found = sorted(file for file in found if file.is_file())
        if len(found) != 1:
            raise InputError(
                f"{name!r} has {len(found)} files of MobileCLIP's weights; expected one, such as "
                "mobileclip_s0.pt."
            )
        config = path / CONFIG_FILE
        return found[0], _transform_in(config) if config.is_file() else None
    if name.endswith(".pt"):
        if not path.is_file():
            raise InputError(f"There is no file {name!r}; pass one such as mobileclip_s0.pt.")
        return path, None
    return _fetch(name)


def _fetch(name: str) -> tuple[Path, Transform | None]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    kind = name.partition("/")[2]
    try:
        if not kind.endswith(_OPEN_CLIP):
            file = kind.lower().replace("-", "_") + ".pt"
            return Path(hf_hub_download(name, file)), None
        transform = _transform_in(Path(hf_hub_download(name, CONFIG_FILE)))
        try:
            return Path(hf_hub_download(name, _OPEN_CLIP_WEIGHTS[0])), transform
        except EntryNotFoundError:
            return Path(hf_hub_download(name, _OPEN_CLIP_WEIGHTS[1])), transform
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"Cannot load a model from {name!r}: {first_line}") from error


def _transform_in(config: Path) -> Transform:
    """Returns the transform of an open_clip_config.json."""
    read = json.loads(config.read_text())
    size = read.get("model_cfg", {}).get("vision_cfg", {}).get("image_size", 256)
    return transform_of({"size": size, **read.get("preprocess_cfg", {})})


def _transform_of(config: MobileClipImageConfig) -> Transform:
    """Returns how images enter: of S3 and S4 normalised as OpenAI's, of the others not at all.

    So say Apple's examples and open_clip's table of pretrained networks.
    """
    normalised = config.layer_norm  # which only those two have
    return Transform(
        config.image_size,
        resample=2,
        mean=OPENAI_MEAN if normalised else (0.0, 0.0, 0.0),
        std=OPENAI_STD if normalised else (1.0, 1.0, 1.0),
        crop_to_nearest=True,
    )


def _read(file: Path) -> dict[str, Tensor]:
    """Returns the weights of a file, by their published names.

    Raises:
        InputError: it cannot be read, or holds anything else than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{str(file)!r} cannot be read as weights: {first_line}") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise InputError(f"{str(file)!r} holds a {type(state).__name__}; expected weights by name.")
    return {
        str(name).removeprefix("module."): value
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def network_of(state: Mapping[str, Tensor], name: str) -> Any:
    """Returns the network of published weights.

    Args:
        state: weights of either naming.
        name: of the checkpoint, for messages.

    Raises:
        InputError: they are not those of a MobileCLIP-S network.
    """
    weights = convert(state)
    try:
        image, text = image_config(weights), text_config(weights)
        with torch.device("meta"):
            network: Any = dual_of_towers(image, text)
        network.load_state_dict(weights, assign=True)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[-1].strip().strip("'")
        raise InputError(
            f"{name!r} is no MobileCLIP-S0 to -S4 as released ({why}); MobileCLIP-B and -L-14, "
            "whose image encoders are vision transformers, load as open_clip:MODEL/PRETRAINED."
        ) from None
    network.requires_grad_(True)
    return network


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights of either published naming under ours."""
    blocks = {place: i for i, place in enumerate(sorted(set(filter(None, map(_place, state)))))}
    converted = {}
    for name, value in state.items():
        if (found := _IMAGE_TOWER.match(name)) is not None:
            place, begin = _place(name), "vision_model"
            if place is not None:
                begin = f"vision_model.blocks.{blocks[place]}"
            new = _renamed(_BLOCK.sub("", name[found.end() :]), begin, _IMAGE)
        elif (found := _TEXT_TOWER.match(name)) is not None:
            new = _renamed(name[found.end() :], "text_model", _TEXT)
        else:
            new = name
        converted[new] = _reshaped(value, name, new)
    return converted


def _renamed(name: str, begin: str, rules: Iterable[tuple[str, str]]) -> str:
    name = f".{name}"
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return begin + name


def _reshaped(value: Tensor, published: str, new: str) -> Tensor:
    """Returns a tensor in the shape in which it is kept here."""
    if _TURNED.search(published):
        value = value.T
    elif new.endswith((".scale", ".position_embedding")):
        value = value.squeeze()
    elif new.endswith(".out.conv.weight"):
        value = value[:, :, None, None]  # a linear layer over places
    return value.float().contiguous() if value.is_floating_point() else value


def _place(name: str) -> tuple[int, int] | None:
    """Returns what sorts the image tower's blocks into the order of computation; None elsewhere."""
    found = _BLOCK.search(name)
    if found is None or _IMAGE_TOWER.match(name) is None:
        return None
    number, inner, stage, kind, block = found.groups()
    if number is not None:
        return int(number), int(inner or 0)
    return int(stage), 2 + int(block) if kind == "blocks" else int(kind == "pos_emb")


def image_config(weights: Mapping[str, Tensor]) -> MobileClipImageConfig:
    """Returns the configuration of an image tower by its weights, under our names.

    Raises:
        KeyError: there are not the weights of such a tower.
    """
    prefix = "vision_model."
    own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    widths, depths, squeezed, attending = [own["stem.2.conv.full.conv.weight"].shape[0]], [0], 0, 0
    numbers = {int(name.split(".")[1]) for name in own if name.startswith("blocks.")}
    for number in range(len(numbers)):
        block = f"blocks.{number}."
        if f"{block}conv.large.conv.weight" in own:
            widths.append(own[f"{block}conv.large.conv.weight"].shape[0])
            depths.append(0)
            squeezed += f"{block}squeeze.reduce.weight" in own
        elif f"{block}conv.weight" in own:  # the positions of a stage that attends
            attending += 1
        else:
            depths[-1] += 1
    projection = own["projection.weight"]
    return MobileClipImageConfig(
        depths=depths,
        widths=widths,
        ratio=own["blocks.0.ffn.widen.weight"].shape[0] // widths[0],
        attending=attending,
        squeezed=squeezed,
        layer_norm=f"blocks.{len(numbers) - 1}.norm.running_mean" not in own,
        stem_points="stem.0.conv.point.conv.weight" in own,
        projection_dim=projection.shape[0],
        projection_bias="projection.bias" in own,
    )


def text_config(weights: Mapping[str, Tensor]) -> MobileClipTextConfig:
    """Returns the configuration of a text tower by its weights, under our names.

    Raises:
        KeyError: there are not the weights of such a tower.
    """
    vocab_size, width = weights["text_model.token_embedding.weight"].shape
    layers = {name.split(".")[2] for name in weights if name.startswith("text_model.layers.")}
    mixes = "text_model.layers.0.mixer.scale" in weights
    return MobileClipTextConfig(
        vocab_size=vocab_size,
        width=width,
        layers=len(layers) - 2 * mixes,
        heads=width // _HEAD,
        mixes=mixes,
        projection_dim=weights["text_model.projection.weight"].shape[0],
        max_position_embeddings=len(weights["text_model.position_embedding"]),
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,  # the largest id is where the text is read
        pad_token_id=0,
    )


def _tokenizer(folder: Path, text: MobileClipTextConfig, name: str) -> Any:
    """Returns the tokenizer beside the weights, or CLIP's.

    Raises:
        InputError: it cannot be loaded, or has other ids.
    """
    import transformers

    beside = any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json"))
    source = str(folder) if beside else TOKENIZER
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(
            f"{name!r} reads texts with CLIP's tokenizer, which cannot be loaded from {source!r} "
            f"({first_line}); put tokenizer.json and tokenizer_config.json of {TOKENIZER} beside "
            "the weights."
        ) from error
    return with_end_of_text(tokenizer, text, name)
