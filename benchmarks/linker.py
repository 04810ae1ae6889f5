"""The whole linker: captions per second and core, from raw text to scored entities.

    python benchmarks/linker.py --names 1000000 --captions 200000

Builds a knowledge base of made-up names (as benchmarks/matcher.py) in which a tenth of the names
belong to several entities, and links captions of eleven words: canonical text, matching, priors,
leftmost-longest, and the table. Once more with the words of descriptions as context. Prints JSON:
CPU time in one process and thread, median of the rounds, and how long the build took.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from matcher import make_captions, make_words, names_of

from openmofi.config import KBSettings
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker, WordEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--captions", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    words = make_words()
    captions = make_captions(words, options.names, options.captions)
    with tempfile.TemporaryDirectory() as folder:
        catalogue = write_catalogue(words, options.names, Path(folder))
        began = time.perf_counter()
        settings = KBSettings(workers=options.workers)
        summary = build_kb(catalogue, out=Path(folder) / "kb", settings=settings)
        built = time.perf_counter() - began
        kb = KnowledgeBase.open(Path(folder) / "kb")
        result = {
            "names": summary.names,
            "entities": summary.entities,
            "build_seconds": round(built, 1),
            "captions": options.captions,
            "words_per_caption": sum(len(c.split()) for c in captions[:1000].to_pylist()) / 1000,
            **rates(kb, captions, options.rounds),
        }
    print(json.dumps(result, indent=2))


def write_catalogue(words: pa.StringArray, num_names: int, folder: Path) -> Path:
    """Writes a Parquet catalogue; every tenth name goes to two more entities."""
    path, row = folder / "catalogue.parquet", 0
    columns = ("id", "name", "description", "weight")
    writer = None
    for chunk in range(100):
        names = names_of(words, num_names * 10 // 12, chunk).to_pylist()
        names += names[::10] * 2
        ids = [f"E{row + i}" for i in range(len(names))]
        described = [f"{name} of the kind {i % 997}" for i, name in enumerate(names)]
        weights = [float(1 + (row + i) % 300) for i in range(len(names))]
        table = pa.table([ids, names, described, weights], names=list(columns))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        row += len(names)
    assert writer is not None
    writer.close()
    return path


def rates(kb: KnowledgeBase, captions: pa.Array, rounds: int) -> dict[str, float]:
    linkers = {"no encoder": Linker(kb), "words as context": Linker(kb, encoder=WordEncoder(kb))}
    few = captions[: len(captions) // 10]
    found = {}
    for name, linker in linkers.items():
        of_linker = captions if name == "no encoder" else few
        linker.link(of_linker[:4096])  # compiles, and reads what lies on the disk
        times = []
        for _ in range(rounds):
            began = time.process_time()
            table = linker.link(of_linker)
            times.append(time.process_time() - began)
        rate = len(of_linker) / statistics.median(times)
        found[f"captions_per_second_and_core, {name}"] = round(rate)
        found["mentions_per_caption"] = round(len(table) / len(of_linker), 2)
    return found


if __name__ == "__main__":
    main()
