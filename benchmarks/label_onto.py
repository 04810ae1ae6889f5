"""How many images `label --onto` looks at again when a knowledge base gains 10,000 entities.

    python benchmarks/label_onto.py --pairs 1000000

A made-up world: 200,000 old things whose names occur in captions as unevenly as words do, and
10,000 new ones, as rare as the rarer half of the old; every tenth of the new bears the name of an
old one. Captions name one or two things among other words; one in five names nothing. An untrained
encoder labels the pairs by the older knowledge base, then by the newer one, both onto the first
labels and in full. Prints JSON: the images that were looked at for their labels, seconds, CPU
seconds and memory of each job, and whether the tables are the same to the last byte.
"""

import argparse
import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from diff_scale import run_verb
from PIL import Image

from openmofi.config import KBSettings
from openmofi.kb import build_kb
from openmofi.shards import commits

_IMAGES = 500
_SIDE = 64
_ONE = KBSettings(workers=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--shard", type=int, default=10_000)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--new", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rng = np.random.default_rng(0)
        names = write_catalogues(folder, options.entities, options.new)
        write_pairs(folder / "pairs", names, options, rng)
        write_model(folder / "model")
        build_kb(folder / "old.parquet", out=folder / "kb", settings=_ONE)
        build_kb(folder / "new.parquet", out=folder / "next", settings=_ONE, onto=folder / "kb")
        jobs = {"first": ["kb"], "onto": ["next", "--onto", f"{folder}/first"], "full": ["next"]}
        result: dict = {"pairs": options.pairs, "new_entities": options.new}
        for name, (kb, *more) in jobs.items():
            line = f"label {folder}/pairs --kb {folder}/{kb} --out {folder}/{name} --workers 1"
            totals, costs = run_verb([*line.split(), "--model", f"{folder}/model", *more])
            share = totals["looked"] / options.pairs
            result[name] = {"looked": totals["looked"], "share_of_pairs": share, **costs}
        tables = [{c.shard: c.sha256 for c in commits(folder / name)} for name in ("onto", "full")]
        result["same_tables"] = tables[0] == tables[1]
    print(json.dumps(result, indent=2))


def write_catalogues(folder: Path, num_old: int, num_new: int) -> np.ndarray:
    """Writes both catalogues; returns the names of all things, the most frequent first."""
    rng = np.random.default_rng(1)
    letters = np.array(list("bcdfghklmnprstvz"))
    syllables = np.char.add(
        rng.choice(letters, (num_old + num_new, 3)), rng.choice(list("aeiou"), 3)
    )
    words = np.char.add(np.char.add(syllables[:, 0], syllables[:, 1]), syllables[:, 2])
    number = np.arange(num_old + num_new)
    names = np.char.add(np.char.add(words, " "), number.astype(str))
    names[num_old::10] = names[rng.integers(0, num_old, len(names[num_old::10]))]
    for name, part in (("old", slice(0, num_old)), ("new", slice(num_old, None))):
        table = {
            "id": np.char.add("E", number[part].astype(str)),
            "name": names[part],
            "description": np.char.add("a made-up thing of kind ", (number[part] % 97).astype(str)),
        }
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return names


def write_pairs(
    folder: Path, names: np.ndarray, options: argparse.Namespace, rng: np.random.Generator
) -> None:
    folder.mkdir()
    rank = np.r_[
        np.arange(options.entities),
        rng.integers(options.entities // 2, options.entities, options.new),
    ]
    weight = 1 / (1.0 + rank)
    cumulative = np.cumsum(weight / weight.sum())
    images = [_jpeg(rng) for _ in range(_IMAGES)]
    for begin in range(0, options.pairs, options.shard):
        count = min(options.shard, options.pairs - begin)
        thing = np.minimum(np.searchsorted(cumulative, rng.random((2, count))), len(names) - 1)
        kind = rng.choice(3, count, p=(0.2, 0.5, 0.3))
        keys, captions = [], []
        with tarfile.open(
            folder / f"{begin // options.shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT
        ) as tar:
            for i in range(count):
                keys.append(f"{begin + i:09d}")
                said = [f"picture of {names[thing[j, i]]}" for j in range(kind[i])]
                captions.append(" and ".join(said) or "nothing to see here")
                data = images[(begin + i) % _IMAGES]
                info = tarfile.TarInfo(f"{keys[-1]}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        table = pa.table({"key": keys, "caption": captions, "url": [""] * count})
        pq.write_table(table, folder / f"{begin // options.shard:05d}.parquet")


def _jpeg(rng: np.random.Generator) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((_SIDE, _SIDE)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_model(folder: Path) -> None:
    """Saves an untrained encoder whose features differ from image to image."""
    import torch

    from openmofi.model import MofiModel, save_model
    from openmofi.model.presets import build_network
    from openmofi.model.tokenizer import special_tokens, train_tokenizer
    from openmofi.model.transform import Transform

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a made-up thing of kind 12"], vocab_size=400, context_length=20)
    network = build_network("nano", special_tokens(tokenizer), image_size=_SIDE)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    pixels = torch.randn(8, 3, _SIDE, _SIDE)
    network.train()(input_ids=torch.ones(8, 4).long(), pixel_values=pixels)
    save_model(MofiModel(network, tokenizer, Transform(_SIDE)), folder, card="# made up\n")


if __name__ == "__main__":
    main()
