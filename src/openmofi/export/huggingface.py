"""Kept images -> a dataset folder that `datasets.load_dataset` opens, with its card.

The Parquet schema's metadata contain the features under `huggingface`, as `datasets` itself writes
them, so that the column image is decoded as images:
https://huggingface.co/docs/datasets/about_dataset_features
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from openmofi.export.croissant import Description, write_croissant
from openmofi.export.samples import ABOUT, ExportSample, Selected

_ROW_GROUP = 100
"""Images per row group; the hub's viewer and streaming readers need small ones."""

_SIZES = (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6))
_MORE_SIZES = (("1M<n<10M", 1e7), ("10M<n<100M", 1e8), ("100M<n<1B", 1e9))


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


_FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    "key": _value("string"),
    "caption": _value("string"),
    "url": _value("string"),
    "entities": [{"id": _value("string"), "label": _value("string"), "score": _value("float32")}],
    "source_shard": _value("string"),
    "source_key": _value("string"),
    "width": _value("int32"),
    "height": _value("int32"),
    "sha256": _value("string"),
}

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [("image", _IMAGE), *ABOUT],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def write_huggingface(
    selected: Selected, folder: Path, shard_size: int, about: Description
) -> tuple[int, int]:
    """Writes data/ and README.md; returns (images, Parquet files)."""
    (folder / "data").mkdir()
    samples = selected.samples()
    images, parts = 0, []
    for first in samples:
        parts.append(folder / "data" / f"{len(parts):05d}.parquet")
        with pq.ParquetWriter(parts[-1], SCHEMA, compression="zstd") as file:
            rows, left = [_row(first)], shard_size - 1
            while rows:
                images += len(rows)
                file.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = [_row(sample) for sample in islice(samples, min(left, _ROW_GROUP))]
                left -= len(rows)
    names = [f"train-{i:05d}-of-{len(parts):05d}.parquet" for i in range(len(parts))]
    parts = [part.rename(part.with_name(name)) for part, name in zip(parts, names, strict=True)]
    (folder / "README.md").write_text(_readme(about, images, parts), encoding="utf-8")
    write_croissant(folder, parts, about)
    return images, len(parts)


def _row(sample: ExportSample) -> dict[str, Any]:
    path = f"{sample.key}.{sample.extension}"
    return {"image": {"bytes": sample.data, "path": path}, **sample.about()}


def _readme(about: Description, images: int, parts: list[Path]) -> str:
    """Returns the card: a header in YAML, then the text."""
    num_bytes = sum(part.stat().st_size for part in parts)
    sizes = (name for name, most in _SIZES + _MORE_SIZES if images < most)
    features = []
    for name, feature in _FEATURES.items():
        if isinstance(feature, list):
            inner = [{"name": n, "dtype": f["dtype"]} for n, f in feature[0].items()]
            features.append({"name": name, "list": inner})
        else:
            features.append({"name": name, "dtype": feature.get("dtype", "image")})
    head = {
        "license": about.license,
        "pretty_name": about.name,
        "size_categories": [next(sizes, "n>1B")],
        "task_categories": ["image-classification", "feature-extraction"],
        "tags": ["image-text", "entities", "openmofi"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}
        ],
        "dataset_info": {
            "features": features,
            "splits": [{"name": "train", "num_bytes": num_bytes, "num_examples": images}],
            "download_size": num_bytes,
            "dataset_size": num_bytes,
        },
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n" + _text(about)


def _text(about: Description) -> str:
    card = about.card
    funnel = card["funnel"]
    rows = [("pairs", funnel["pairs"]), *funnel["refused"].items()]
    rows += [("kept", funnel["kept_images"])]
    table = "\n".join(f"| {name} | {count:,} |" for name, count in rows)
    looked = "" if card["looked"] else " They come from captions alone; no image was looked at."
    checked = "" if about.audits else " and have not been checked by people"
    audited = "".join(f"\n\n{sentence}" for sentence in about.audits)
    if about.audits:
        audited += " The certificates in `audits/` say how to repeat it."
    return f"""
# {about.name}

{about.sentence} The labels were made by OpenMOFI {card["openmofi"]} with the model
{card["model"]!r}{checked}.{looked}{audited}

| column | meaning |
|---|---|
| image | the image, encoded as it was found |
| caption, url | the text that came with it, and where it came from |
| entities | id and label of what it shows, with the probability among the candidates, best first |
| key | number of the image in this dataset |
| source_shard, source_key | its place in the input |
| width, height, sha256 | of the encoded image |

`vocabulary.parquet` lists all entities with their descriptions, `card.json` every setting.

What became of every pair of the input:

| step | images |
|---|---|
{table}
"""
