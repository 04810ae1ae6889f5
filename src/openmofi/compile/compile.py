"""A model directory -> one whose towers are ONNX files, which every verb takes as `--model`.

image_encoder.onnx  text_encoder.onnx      the towers, maps included
config.json  model.safetensors  tokenizer* preprocessor_config.json  entity_head/  as before
compile.json        what it was made from, with which settings, and what the checks found
"""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

import openmofi
from openmofi.compile.check import finds, largest_difference, least_cosine
from openmofi.compile.int8 import to_int8
from openmofi.compile.towers import export_images, export_texts
from openmofi.config import CompileSettings, as_dict
from openmofi.embed.encode import computing_in_one_thread, place_reader
from openmofi.embed.places import find_places
from openmofi.errors import InputError, SettingsError
from openmofi.files.folders import check_replaceable, local_path, new_folder
from openmofi.images.look import decode
from openmofi.label.encoder import model_digest
from openmofi.label.engine import absolute_model
from openmofi.model import MofiModel, load_model, save_model
from openmofi.model.class_rows import FOLDER as HEAD
from openmofi.model.dual import DualConfig, DualModel
from openmofi.model.onnx_encoder import (
    FILE,
    TEXT_FILE,
    OnnxConfig,
    OnnxEncoder,
    OnnxTextConfig,
    OnnxTextEncoder,
    onnx_parts,
)
from openmofi.model.open_clip import is_open_clip
from openmofi.pairs import ImageReader
from openmofi.progress import progress
from openmofi.refused import Refused
from openmofi.schema import TAG_CALIBRATION

CARD = "compile.json"
_EXACT = 1e-4
"""Largest difference from the original's unit vectors in 32 bits."""
_CALIBRATION = 128
"""Images that the ranges of activations are measured on; they are not among those checked."""
_FEWEST = 100
"""Images from which a check says something."""
_TEXTS = ("a photo of a crane", "crane", "a large bird with long legs, near a lake in the morning")
_TIMED = 64


@dataclass(frozen=True)
class CompileSummary:
    """What was written, and how it differs from the original."""

    out: Path
    megabytes: dict[str, float]
    """Size of each tower's file; those of the original together are `original`."""
    largest_difference: dict[str, float]
    """Of each tower in 32 bits, between unit vectors."""
    least_cosine: float | None
    """Of the 8-bit and the original vectors of images; None without int8."""
    found: dict[str, tuple[float, float]]
    """mAP in percent of each task of `check`, of the original and compiled; empty without int8."""
    images_per_cpu_second: dict[str, float]
    """Of the original in 32 bits and in its fastest precision, and as compiled; one thread."""


def compile_model(
    model: Path | str,
    *,
    out: Path | str,
    settings: CompileSettings | None = None,
    images: Path | str | None = None,
) -> CompileSummary:
    """Writes a model whose towers onnxruntime computes.

    Args:
        model: hub id or directory of an encoder.
        out: the model directory to write.
        settings: see `config.CompileSettings`.
        images: any input that `embed` reads; int8 is calibrated on some and checked on others.

    Raises:
        InputError: the model or the images cannot be read, the network cannot be written as ONNX,
            or the result differs too much from the original.
        SettingsError: int8 is asked for without images.
    """
    settings = settings or CompileSettings()
    out = local_path(out)
    check_replaceable(out, lambda folder: (folder / CARD).is_file(), "a compiled model")
    if settings.int8 and images is None:
        raise SettingsError(
            "--int8 needs --images: photos like yours, on which it is calibrated and checked."
        )
    original = _load(model)
    most = _CALIBRATION + (settings.sample if settings.int8 else 0)
    pixels, captions = _sample(images, original, most)
    if settings.int8 and len(pixels) < _FEWEST + _CALIBRATION:
        raise InputError(
            f"{str(images)!r} has {len(pixels):,} readable images; --int8 needs at least "
            f"{_FEWEST + _CALIBRATION}."
        )
    with new_folder(out) as folder, computing_in_one_thread():
        _write_towers(original, folder)
        compiled = _compiled(original, folder, {})
        differences = _check_exact(original, compiled, pixels[:_CALIBRATION])
        cosine, found = None, {}
        if settings.int8:
            has_captions = any(captions[_CALIBRATION:])
            alone = _quantise(original, folder, pixels[:_CALIBRATION], texts=has_captions)
            compiled = _compiled(original, folder, alone)
            cosine, found = _check_int8(
                original, compiled, pixels[_CALIBRATION:], captions[_CALIBRATION:], settings
            )
        towers = [file for file in (FILE, TEXT_FILE) if (folder / file).is_file()]
        summary = CompileSummary(
            out=out,
            megabytes={
                "original": _megabytes(sum(_weights(original))),
                **{file: _megabytes((folder / file).stat().st_size) for file in towers},
            },
            largest_difference=differences,
            least_cosine=cosine,
            found=found,
            images_per_cpu_second=_rates(model, original, compiled),
        )
        save_model(compiled, folder, card=_card(summary, str(model), settings))
        _write_beside(Path(model), folder, summary, settings)
    return summary


def _load(model: Path | str) -> MofiModel:
    """Returns the model to compile, in 32 bits.

    Raises:
        InputError: it cannot be compiled.
    """
    if is_open_clip(str(model)):
        raise InputError(
            f"{str(model)!r} is a checkpoint of open_clip, whose tokenizer no model directory can "
            "hold; pass a Hugging Face one, such as openai/clip-vit-base-patch32."
        )
    original = load_model(model, device="cpu")
    if onnx_parts(original.network):
        raise InputError(
            f"{str(model)!r} is an ONNX file already; pass the model it was made from."
        )
    return original


def _write_beside(
    model: Path, folder: Path, summary: CompileSummary, settings: CompileSettings
) -> None:
    """Writes compile.json, and copies class rows and, if vectors are the same, calibration."""
    if (model / HEAD).is_dir():
        shutil.copytree(model / HEAD, folder / HEAD)
    if not settings.int8 and (model / TAG_CALIBRATION).is_file():
        shutil.copyfile(model / TAG_CALIBRATION, folder / TAG_CALIBRATION)
    card = {
        "openmofi": openmofi.__version__,
        "model": absolute_model(str(model)),
        "model_sha256": model_digest(str(model)),
        "settings": as_dict(settings),
        **{name: value for name, value in asdict(summary).items() if name != "out"},
    }
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")


def _sample(
    images: Path | str | None, model: MofiModel, most: int
) -> tuple[UInt8[np.ndarray, "n s s 3"], list[str]]:
    """Returns (pixels, captions) of images drawn evenly; without any input, noise."""
    size = model.transform.size
    if images is None:
        noise = np.random.default_rng(0).integers(0, 256, (16, size, size, 3), dtype=np.uint8)
        return noise, [""] * len(noise)
    places = find_places(images)
    read = place_reader(ImageReader(places.root), places.table)
    captions = places.table["caption"]
    found: list[tuple[np.ndarray, str]] = []
    order = np.random.default_rng(0).permutation(len(places.table)).tolist()
    with progress("read", total=min(most, len(order)), unit="images") as bar:
        for row in order:
            decoded = decode(read, row, model.transform)
            if isinstance(decoded, Refused):
                continue
            found.append((decoded[0], captions[row].as_py() or ""))
            bar.advance()
            if len(found) == most:
                break
    if not found:
        raise InputError(f"{str(images)!r} has no readable image.")
    return np.stack([pixels for pixels, _ in found]), [caption for _, caption in found]


def _write_towers(model: MofiModel, folder: Path) -> None:
    with progress("compile", total=1 + model.reads_texts, unit="towers") as bar:
        export_images(model, folder / FILE)
        bar.advance()
        if model.reads_texts:
            export_texts(model, folder / TEXT_FILE)
            bar.advance()


def _compiled(model: MofiModel, folder: Path, alone: dict[str, bool]) -> MofiModel:
    """Returns the model with its towers from files, of which some compute each row alone."""
    shape = {"hidden_size": model.dim, "image_size": model.transform.size}
    images = OnnxEncoder(OnnxConfig(**shape, rows_alone=alone.get(FILE, False)))
    images.open(folder / FILE)
    texts = None
    if model.reads_texts:
        texts = OnnxTextEncoder(
            OnnxTextConfig(
                hidden_size=model.dim,
                max_position_embeddings=model.context_length,
                read_as=model.text_kind,
                rows_alone=alone.get(TEXT_FILE, False),
            )
        )
        texts.open(folder / TEXT_FILE)
    config = DualConfig(
        vision_config=images.config,
        text_config=texts.config if texts else None,
        text_pooling="pooler",
        projection_dim=model.dim,
    )
    network = DualModel(config, images, texts)
    scale = getattr(model.network, "logit_scale", None)
    if scale is not None:
        network.logit_scale.data.copy_(scale.detach().reshape(()))  # SigLIP's is a list of one
    return MofiModel(network.eval(), model.tokenizer, model.transform, "cpu")


def _check_exact(
    original: MofiModel, compiled: MofiModel, pixels: UInt8[np.ndarray, "n s s 3"]
) -> dict[str, float]:
    """Returns the largest difference of each tower.

    Raises:
        InputError: one is too large.
    """
    pairs = {"images": (original.encode_pixels(pixels), compiled.encode_pixels(pixels))}
    if original.reads_texts:
        pairs["texts"] = (original.encode_texts(_TEXTS), compiled.encode_texts(_TEXTS))
    found = {name: largest_difference(*vectors) for name, vectors in pairs.items()}
    for name, value in found.items():
        if not value <= _EXACT:  # NaN as well
            raise InputError(
                f"Compiled, the vectors of {name} differ by up to {value:.1e} from the original's, "
                f"more than {_EXACT:g}; nothing was written."
            )
    return found


def _quantise(
    model: MofiModel, folder: Path, pixels: UInt8[np.ndarray, "n s s 3"], *, texts: bool
) -> dict[str, bool]:
    """Puts towers in 8 bits in place of their files; returns which compute each row alone.

    Args:
        model: the original.
        folder: that of the files.
        pixels: of images on which ranges are measured.
        texts: whether the text side's 8 bits can be checked; otherwise it keeps its 32.
    """
    examples = model.transform.normalise(torch.from_numpy(pixels)).numpy()
    alone = {}
    towers = {FILE: examples, **({TEXT_FILE: None} if texts and model.reads_texts else {})}
    with progress("quantise", total=len(towers), unit="towers") as bar:
        for name, inputs in towers.items():
            small = folder / f"int8.{name}"
            alone[name] = to_int8(folder / name, small, inputs)
            small.replace(folder / name)
            bar.advance()
    return alone


def _check_int8(
    original: MofiModel,
    compiled: MofiModel,
    pixels: UInt8[np.ndarray, "n s s 3"],
    captions: list[str],
    settings: CompileSettings,
) -> tuple[float, dict[str, tuple[float, float]]]:
    """Returns (least cosine, mAP of each task before and after).

    Raises:
        InputError: a task lost more than `settings` allows.
    """
    with progress("check", total=4 * len(pixels), unit="images") as bar:
        (vectors, before), (int8_vectors, after) = (
            finds(model, pixels, captions, bar.advance) for model in (original, compiled)
        )
    found = {}
    for task, ranks in before.items():
        found[task] = float(100 * ranks.mean()), float(100 * after[task].mean())
        lost = found[task][0] - found[task][1]
        if lost > settings.max_loss:
            error = 100 * (ranks - after[task]).std() / math.sqrt(len(ranks))
            near = lost - error <= settings.max_loss and len(pixels) == settings.sample
            more = f", or check more images than --sample {settings.sample}" if near else ""
            raise InputError(
                f"In 8 bits, {task} find their image worse: mAP {found[task][0]:.2f} before, "
                f"{found[task][1]:.2f} after, {lost:.2f} points (standard error {error:.2f}), more "
                f"than --max-loss {settings.max_loss:g}; nothing was written. Leave --int8 out, "
                f"allow more{more}."
            )
    return least_cosine(vectors, int8_vectors), found


def _rates(model: Path | str, original: MofiModel, compiled: MofiModel) -> dict[str, float]:
    """Returns images per CPU-second, without decoding, each the best of three runs."""
    size = compiled.transform.size
    pixels = np.random.default_rng(0).integers(0, 256, (_TIMED, size, size, 3), dtype=np.uint8)
    fastest = load_model(model, device="cpu", precision="auto")
    models = {"fp32": original, "auto": fastest, "compiled": compiled}
    return {name: _rate(each, pixels) for name, each in models.items()}


def _rate(model: MofiModel, pixels: UInt8[np.ndarray, "n s s 3"]) -> float:
    model.encode_pixels(pixels[:8])
    seconds = []
    for _ in range(3):
        began = time.process_time()
        model.encode_pixels(pixels)
        seconds.append(time.process_time() - began)
    return round(len(pixels) / max(min(seconds), 1e-9), 1)


def _weights(model: MofiModel) -> list[int]:
    return [weight.numel() * weight.element_size() for weight in model.network.parameters()]


def _megabytes(size: int) -> float:
    return round(size / 1e6, 1)


def _card(summary: CompileSummary, model: str, settings: CompileSettings) -> str:
    numbers = "8-bit integers" if settings.int8 else "32-bit numbers"
    found = "".join(
        f"- {task} find their image: mAP {before:.2f} before, {after:.2f} compiled\n"
        for task, (before, after) in summary.found.items()
    )
    return f"""---
library_name: openmofi
tags: [openmofi, onnx, image-feature-extraction]
---
# {model}, compiled with OpenMOFI {openmofi.__version__}

Its towers are ONNX files in {numbers}: `{FILE}` (pixel_values, normalised as
`preprocessor_config.json` says, to features) and, where it reads texts, `{TEXT_FILE}`. onnxruntime
runs them; load it with `openmofi.model.load_model(path)`, or give it to any verb as its model. It
cannot be trained further.

{found}"""
