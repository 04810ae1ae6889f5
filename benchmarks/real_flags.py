"""How well does a demo's model name real flag images that it was never shown?

    python benchmarks/real_flags.py demo/runs/multitask/model demo/kb IMAGES

IMAGES is a folder of xx.png by ISO country code, such as HatScripts/circle-flags (MIT). Only
countries of the demo's world are asked. Two files of that set are not a country's flag (ie: the
language Interlingue; ar: the language Arabic) and are left out.
"""

import argparse
import json
from pathlib import Path

from openmofi.demo.entities import WORLD, DemoEntity
from openmofi.tag import Tagger

_LANGUAGES = {"IE", "AR"}


def main() -> None:
    """Prints top-1 and top-5 accuracy and the mistakes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("kb")
    parser.add_argument("images", type=Path)
    arguments = parser.parse_args()
    asked = asked_flags(arguments.images)
    tags = Tagger(arguments.model, arguments.kb).tag([path for _, path in asked], k=5)
    ids = [[tag.id for tag in found] for found in tags]
    mistakes = {
        entity.name: found[0].label
        for (entity, _), found in zip(asked, tags, strict=True)
        if found[0].id != entity.id
    }
    result = {
        "images": len(asked),
        "top1": sum(e.id == i[0] for (e, _), i in zip(asked, ids, strict=True)) / len(asked),
        "top5": sum(e.id in i for (e, _), i in zip(asked, ids, strict=True)) / len(asked),
        "mistakes": mistakes,
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))


def asked_flags(images: Path) -> list[tuple[DemoEntity, Path]]:
    """Returns the world's countries of which there is a real flag, and the image."""
    asked = [
        (entity, images / f"{entity.iso.lower()}.png")
        for entity in WORLD
        if entity.kind == "country" and entity.iso not in _LANGUAGES
    ]
    return [(entity, path) for entity, path in asked if path.is_file()]


if __name__ == "__main__":
    main()
