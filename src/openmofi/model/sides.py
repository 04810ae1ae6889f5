"""One side of a dual encoder, from wherever it comes, and two sides joined.

image: a Hugging Face image encoder, the image side of a dual encoder, or an .onnx file
text:  a sentence-transformers directory, a Hugging Face text encoder, or a dual encoder's text
       side
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from openmofi.errors import InputError
from openmofi.model.dual import DualConfig, DualModel, MapShape, UnitLinear, build_encoder, pool
from openmofi.model.onnx_encoder import OnnxConfig, OnnxEncoder, onnx_parts
from openmofi.model.transform import Transform

_FIRST_TOKEN = ("vit", "deit", "vit_mae", "data2vec-vision", "vit_msn")
"""Encoders whose pooler, if they have one, is a classifier's layer and not a feature."""
_TEXT_POOLERS = ("clip_text_model", "siglip_text_model")
"""Text encoders that say themselves where a text is read."""
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
"""Settings of sentence-transformers' Pooling that we know."""


@dataclass(frozen=True)
class EncoderSide:
    """An encoder, how it is pooled, and the linear maps behind it."""

    encoder: Any
    pooling: str
    maps: tuple[Any, ...]
    """UnitLinear each, or the projection of another class of network, without a bias."""
    reads: Any
    """What feeds it: a Transform, or a tokenizer."""

    def shapes(self) -> list[MapShape]:
        """Returns the shapes of its maps."""
        return [
            (m.in_features, m.out_features, m.bias is not None, getattr(m, "power", 1.0))
            for m in self.maps
        ]

    def then(
        self, map_ED: Float[Tensor, "E D"], mean_D: Float[Tensor, " D"], power: float = 1.0
    ) -> EncoderSide:
        """Returns the side with x -> M (x^power - mean) behind it; a mean of 0 makes no bias."""
        centres = bool(mean_D.any())
        layer = UnitLinear(map_ED.shape[1], len(map_ED), centres, power)
        layer.weight.data.copy_(map_ED.detach())
        if centres:
            layer.bias.data.copy_(-(map_ED.detach().double() @ mean_D.double()))
        return replace(self, maps=(*self.maps, layer))


def join(image: EncoderSide | None, text: EncoderSide | None, *, dim: int) -> DualModel:
    """Returns the network of two sides, or of one alone.

    Args:
        image: side whose output has `dim` numbers.
        text: side whose output has as many.
        dim: length of the vectors.
    """
    settings: dict[str, Any] = {"projection_dim": dim}
    if image is not None:
        settings |= {"vision_config": image.encoder.config, "vision_pooling": image.pooling}
        settings["visual_maps"] = image.shapes()
    if text is not None:
        settings |= {"text_config": text.encoder.config, "text_pooling": text.pooling}
        settings["text_maps"] = text.shapes()
    network = DualModel(
        DualConfig(**settings),
        image.encoder if image is not None else None,
        text.encoder if text is not None else None,
    )
    for name, side in (("visual", image), ("text", text)):
        for own, given in zip(
            getattr(network, f"{name}_projection", ()), side.maps if side else (), strict=True
        ):
            own.load_state_dict(given.state_dict())
    return network


def image_side(network: Any, transform: Transform) -> EncoderSide | None:
    """Returns the image side of a dual encoder of Hugging Face or of ours.

    None where it cannot be taken apart: open_clip's networks, and classes with layers in between.
    """
    if isinstance(network, DualModel):
        config = network.config
        return EncoderSide(
            network.vision_model, config.vision_pooling, tuple(network.visual_projection), transform
        )
    maps = _projection(network, "visual_projection")
    return None if maps is None else EncoderSide(network.vision_model, "pooler", maps, transform)


def text_side(network: Any, tokenizer: Any) -> EncoderSide | None:
    """Returns the text side of a dual encoder, or None as `image_side` does."""
    if isinstance(network, DualModel):
        if not network.reads_texts:
            return None
        config = network.config
        return EncoderSide(
            network.text_model, config.text_pooling, tuple(network.text_projection), tokenizer
        )
    maps = _projection(network, "text_projection")
    return None if maps is None else EncoderSide(network.text_model, "pooler", maps, tokenizer)


def _projection(network: Any, name: str) -> tuple[Any, ...] | None:
    """Returns the maps behind the pooler of dual encoders whose end we know, otherwise None."""
    kind = network.config.model_type
    if kind in ("clip", "vision-text-dual-encoder"):
        layer = getattr(network, name)
        # Without a bias, the length of what comes in does not matter.
        return (layer,) if layer.bias is None else None
    return () if kind == "siglip" else None


def image_encoder(network: Any, missing: Sequence[str], name: str) -> tuple[Any, str]:
    """Returns an image encoder of Hugging Face and how it is pooled.

    Args:
        network: as AutoModel loads it.
        missing: names of parameters that the checkpoint lacks.
        name: of the model, for messages.

    Raises:
        InputError: the checkpoint lacks more than a pooler.
    """
    check_complete(name, network, missing)
    kind = network.config.model_type
    return network, "cls" if missing or kind in _FIRST_TOKEN else "pooler"


def check_complete(name: str, network: Any, missing: Iterable[str]) -> None:
    """Refuses a checkpoint that lacks more than a pooler, which may stay unused."""
    lacks = sorted(parameter for parameter in missing if not parameter.startswith("pooler"))
    if lacks:
        raise InputError(
            f"{name!r} lacks weights of its {type(network).__name__}, such as {lacks[0]}; pass a "
            "complete checkpoint."
        )


def onnx_side(file: Path, transform: Transform) -> EncoderSide:
    """Returns the image encoder in an ONNX file.

    Raises:
        InputError: onnxruntime is missing, or cannot run it on images of that size.
    """
    encoder = OnnxEncoder(OnnxConfig(image_size=transform.size))
    encoder.open(file)
    encoder.config.hidden_size = width_of(encoder, "pooler", transform)
    return EncoderSide(encoder, "pooler", (), transform)


def open_onnx(network: DualModel, folder: Path) -> None:
    """Opens the ONNX files of a network that was loaded from a model directory, if it has any."""
    for file, part in onnx_parts(network).items():
        part.open(folder / file)


def width_of(encoder: Any, pooling: str, transform: Transform) -> int:
    """Returns the length of an image encoder's features, by encoding one grey image.

    Raises:
        InputError: it does not take images of that size, or has no such output.
    """
    pixels = torch.zeros(1, 3, transform.size, transform.size)
    try:
        with torch.inference_mode():
            return pool(encoder.eval()(pixel_values=pixels), pooling).shape[1]
    except Exception as error:  # whatever a network raises at a size that it was not made for
        raise InputError(
            f"{type(encoder).__name__} does not encode an image of {transform.size} x "
            f"{transform.size} pixels: {(str(error) or repr(error)).splitlines()[0]}"
        ) from None


def is_dual(name: str) -> bool:
    """Says whether a directory or model of the hub has an image side that a text may be read with.

    Raises:
        InputError: its config.json cannot be read.
    """
    return "vision_config" in _config(name)


def is_encoder_decoder(name: str) -> bool:
    """Says whether a directory or model of the hub is an encoder-decoder, such as T5 or BART.

    Raises:
        InputError: its config.json cannot be read.
    """
    return bool(_config(name).get("is_encoder_decoder"))


def _config(name: str) -> dict[str, Any]:
    with _one_sentence(name):
        config = _json(name, "config.json")
    return config if isinstance(config, dict) else {}


def load_text_side(name: str) -> EncoderSide:
    """Loads a text encoder from a directory or the hub.

    What sentence-transformers saved is pooled as its modules.json says; CLIP's and SigLIP's text
    encoders as they do themselves; every other by the mean over its tokens.

    Raises:
        InputError: it is not a text encoder, or pools in a way that is not known here.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # their bars for one file say nothing
    with _one_sentence(name), no_load_report():
        modules = _json(name, "modules.json")
        steps = {module["type"].rpartition(".")[2]: module["path"] for module in modules or ()}
        folder = steps.get("Transformer", "")
        config = transformers.AutoConfig.from_pretrained(name, subfolder=folder)
        with torch.device("meta"):  # no memory for weights: only the class is wanted
            kind: Any = type(build_encoder(config))
        if kind.main_input_name != "input_ids" or config.is_encoder_decoder:
            raise InputError(
                f"{name!r} holds a {kind.__name__}; expected a text encoder, such as "
                "sentence-transformers/all-MiniLM-L6-v2."
            )
        encoder, info = kind.from_pretrained(
            name, dtype=torch.float32, subfolder=folder, output_loading_info=True
        )
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, subfolder=folder)
    check_complete(name, encoder, info["missing_keys"])
    if steps:
        unknown = sorted(set(steps) - {"Transformer", "Pooling", "Normalize"})
        if unknown or "Pooling" not in steps:
            raise InputError(
                f"{name!r} passes texts through {', '.join(steps)}; expected Transformer, Pooling "
                "and perhaps Normalize."
            )
        pooling = _pooling(name, _json(name, f"{steps['Pooling']}/config.json") or {})
        limit = (_json(name, "sentence_bert_config.json") or {}).get("max_seq_length")
        tokenizer.model_max_length = min(tokenizer.model_max_length, limit or 10**9)
    else:
        pooling = "pooler" if config.model_type in _TEXT_POOLERS else "mean"
    return EncoderSide(encoder, pooling, (), tokenizer)


def _pooling(name: str, config: dict[str, Any]) -> str:
    """Returns the pooling that a 1_Pooling/config.json asks for."""
    asked = config.get("pooling_mode")  # newer versions write one word
    chosen = (
        [asked] if asked else [k for k, v in config.items() if k.startswith("pooling_mode") and v]
    )
    known = {**_MODES, **{mode: mode for mode in _MODES.values()}, "lasttoken": "last"}
    if len(chosen) != 1 or chosen[0] not in known:
        raise InputError(
            f"{name!r} pools by {' and '.join(map(str, chosen)) or 'nothing'}; expected one of "
            f"{', '.join(_MODES)}."
        )
    return known[chosen[0]]


def _json(name: str, file: str) -> Any:
    """Returns a JSON file of a model directory or of the hub, or None if it has no such file."""
    from transformers.utils import cached_file

    path = cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else json.loads(Path(path).read_text())


@contextmanager
def no_load_report() -> Iterator[None]:
    """Keeps transformers from printing which weights a checkpoint lacks, which we say ourselves."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Turns what transformers raises at a model that is not there into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        refuse_model(name, error)


def refuse_model(name: str, error: Exception) -> NoReturn:
    """Raises an InputError that says in one line why a model cannot be loaded."""
    text = str(error)
    # Without it, transformers may take a SentencePiece file for one of tiktoken's.
    if ("SentencePiece" in text and isinstance(error, ImportError)) or "`tiktoken` is" in text:
        raise InputError(
            f"The tokenizer of {name!r} needs the package sentencepiece; install it with: "
            "pip install sentencepiece protobuf."
        ) from error
    first_line = text.strip().splitlines()[0]
    raise InputError(f"Cannot load a model from {name!r}: {first_line}") from error
