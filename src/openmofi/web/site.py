"""A model and a knowledge base -> a folder of static files that any file server can publish.

index.html  *.js  *.css  icon.svg    the page
runtime/              onnxruntime-web, from its npm package
image_encoder.onnx    the image side, as `openmofi compile` writes it
vectors.f16           float16 [entities, dim]: a unit vector of each entity, little-endian
entities.json         [[id, label, description], ...] in the same order
tagger.json           transform, names of the network's input and output, threshold, sizes
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import openmofi
from openmofi.compile import compile_model
from openmofi.compile.compile import CARD
from openmofi.config import CompileSettings
from openmofi.errors import InputError, SettingsError
from openmofi.files.folders import check_replaceable, local_path, new_folder
from openmofi.model.class_rows import FOLDER as HEAD
from openmofi.model.onnx_encoder import FILE, OnnxEncoder
from openmofi.model.transform import Transform
from openmofi.schema import TAG_CALIBRATION
from openmofi.tag import Tagger
from openmofi.tag.abstain import TagCalibration
from openmofi.web.runtime import copy_runtime

SITE_CARD = "tagger.json"
_PAGE = Path(__file__).parent / "static"
_SHARED = Path(openmofi.__file__).parent / "serve/static"
_SHARED_FILES = ("dom.js", "icon.svg", "theme.js", "style/base.css")
_FILTERS = (2, 3)  # of Pillow, that resize.js knows


@dataclass(frozen=True)
class SiteSummary:
    """What was written."""

    out: Path
    entities: int
    megabytes: dict[str, float]
    """encoder: the image side; entities: their vectors and names; runtime: onnxruntime-web."""
    threshold: float | None
    """Least score of an answer; None: it never abstains."""


def write_site(
    model: Path | str,
    *,
    out: Path | str,
    kb: Path | str,
    index: Path | str | None = None,
    images: Path | str | None = None,
    settings: CompileSettings | None = None,
    runtime: Path | str | None = None,
    k: int = 5,
    error_rate: float | None = None,
    unknown: float = 0.0,
) -> SiteSummary:
    """Writes a page that names what images show, on the machine of whoever opens it.

    Args:
        model: output of `compile_model`, or any model that it takes, which is compiled first.
        out: the folder to write.
        kb: knowledge base with the entities' names.
        index: for a model without class rows: the index whose entities are named; None: all of the
            knowledge base.
        images: as `compile_model`; only for a model that is not compiled yet.
        settings: as `compile_model`; only for a model that is not compiled yet.
        runtime: the npm package of onnxruntime-web, see `runtime.copy_runtime`.
        k: entities per image.
        error_rate: share of the answers that may be wrong; needs a calibration of this very model.
        unknown: share of images without an entity that the model knows.

    Raises:
        InputError: the model cannot be compiled, or its images cannot be resized in a browser; no
            entity of the model is in the knowledge base; the runtime is not to be had.
        SettingsError: an error rate without a calibration, an index beside class rows, or a number
            out of bounds.
    """
    out = local_path(out)
    check_replaceable(out, lambda folder: (folder / SITE_CARD).is_file(), "a page of `compile`")
    if k < 1:
        raise SettingsError(f"k, the number of entities, cannot be {k}; expected at least 1.")
    if index is not None and (Path(model) / HEAD).is_dir():
        raise SettingsError(
            f"{str(model)!r} has class rows, whose entities are named; leave --index out."
        )
    meaning = _meaning_of_scores(_calibration(Path(model), settings), error_rate, unknown)
    with _compiled(model, settings, images) as compiled, new_folder(out) as folder:
        (folder / "runtime").mkdir()
        copy_runtime(runtime, folder / "runtime")
        tagger = Tagger(compiled, kb, index=index)
        shutil.copyfile(compiled / FILE, folder / FILE)
        _write_entities(tagger, folder)
        about = _about(tagger, k) | meaning
        data = (FILE, "vectors.f16", "entities.json")
        about["bytes"] = {name: (folder / name).stat().st_size for name in data}
        (folder / SITE_CARD).write_text(json.dumps(about, indent=1) + "\n")
        shutil.copytree(_PAGE, folder, dirs_exist_ok=True)
        for name in _SHARED_FILES:
            shutil.copyfile(_SHARED / name, folder / Path(name).name)
        return SiteSummary(
            out=out,
            entities=len(tagger.ids),
            megabytes={
                "encoder": _megabytes(folder / FILE),
                "entities": _megabytes(folder / "vectors.f16", folder / "entities.json"),
                "runtime": _megabytes(*(folder / "runtime").iterdir()),
            },
            threshold=about["threshold"],
        )


@contextmanager
def _compiled(
    model: Path | str, settings: CompileSettings | None, images: Path | str | None
) -> Iterator[Path]:
    """Yields a compiled model: the given one, or a temporary one made of it."""
    if (Path(model) / CARD).is_file():
        if settings not in (None, CompileSettings()) or images is not None:
            raise SettingsError(
                f"{str(model)!r} is compiled already; --int8, --images, --sample and --max-loss go "
                "with the model it was made from."
            )
        yield Path(model)
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "model"
        yield compile_model(model, out=out, settings=settings, images=images).out


def _write_entities(tagger: Tagger, folder: Path) -> None:
    """Writes the vectors and names of the entities."""
    vectors = np.ascontiguousarray(tagger.vectors, dtype="<f2")
    (folder / "vectors.f16").write_bytes(vectors.tobytes())
    texts, names = tagger.kb.texts, []
    for entity in tagger.ids:
        row = tagger.kb.row_of(entity)
        columns = () if row is None else (texts.label, texts.description)
        label, description = [column[row].as_py() for column in columns] or ("", "")
        names.append([entity, label, description])
    (folder / "entities.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")


def _calibration(model: Path, settings: CompileSettings | None) -> TagCalibration | None:
    """Returns that of the compiled model; 8 bits change the scores, so it loses what it had."""
    keeps = (model / CARD).is_file() or not (settings and settings.int8)
    file = model / TAG_CALIBRATION
    return TagCalibration.read(file) if keeps and file.is_file() else None


def _meaning_of_scores(
    calibration: TagCalibration | None, error_rate: float | None, unknown: float
) -> dict[str, Any]:
    """Returns the least score of an answer, and the probability by score.

    Raises:
        SettingsError: an error rate without a calibration, or one that cannot be met.
    """
    threshold = curve = None
    if calibration is not None:
        scores, probabilities = calibration.curve(unknown=unknown)
        curve = {"scores": scores.tolist(), "probabilities": probabilities.tolist()}
    if error_rate is not None:
        if calibration is None:
            raise SettingsError(
                "--error-rate needs a calibration of the compiled model: `openmofi compile MODEL "
                "--out SMALL`, `openmofi tag calibrate SMALL`, then `openmofi compile SMALL --to "
                "web`."
            )
        threshold = calibration.threshold(error_rate, unknown=unknown)
        if np.isinf(threshold):
            raise SettingsError(
                f"At an error rate of {error_rate:g} no score is sure enough, so the page would "
                "never answer; allow more errors."
            )
    return {"threshold": threshold, "curve": curve}


def _about(tagger: Tagger, k: int) -> dict[str, Any]:
    """Returns what the page must know of the encoder."""
    transform = tagger.model.transform
    _check_filter(transform)
    network = tagger.model.network.vision_model
    assert isinstance(network, OnnxEncoder)
    return {
        "openmofi": openmofi.__version__,
        "transform": asdict(transform),
        "input": network.input_name,
        "output": network.output_name,
        "k": k,
    }


def _check_filter(transform: Transform) -> None:
    if transform.resize == "pillow" and transform.resample not in _FILTERS:
        raise InputError(
            f"The model's image processor resizes with filter {transform.resample} of Pillow; a "
            "page knows 2, bilinear, and 3, bicubic."
        )


def _megabytes(*files: Path) -> float:
    return round(sum(file.stat().st_size for file in files) / 1e6, 1)
