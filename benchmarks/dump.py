"""How fast is a Wikidata dump read, and a knowledge base built?

    python benchmarks/dump.py DUMP                        parse rate beside json and orjson
    python benchmarks/dump.py DUMP --end-to-end 2         a synthesised dump of 2 GB, built
    python benchmarks/dump.py DUMP --names 5000000        a synthesised catalogue, built

DUMP holds some real entities, one a line (any compression). Synthesised dumps repeat them under new
ids and names; --kb-per-entity cuts each to about that size, since whole Wikidata has some 13 KB of
JSON an entity, and files of hand-picked entities ten times as much. Prints JSON. Rates are in MB of
JSON; CPU seconds are those of all processes.
"""

import argparse
import csv
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from isal import igzip

from openmofi.config import KBSettings
from openmofi.files.lines import read_lines
from openmofi.kb.read.decode import LineDecoder
from openmofi.kb.read.records import EntityRecord

ROUNDS = 7
_BUILD = """
import json, sys
from openmofi.config import KBSettings
from openmofi.kb import build_kb
if __name__ == "__main__":
    summary = build_kb(sys.argv[1], out=sys.argv[2], settings=KBSettings(workers=int(sys.argv[3])))
    print(json.dumps([summary.entities, summary.names, summary.seconds, summary.rejected]))
"""


def real_lines(path: Path) -> list[bytes]:
    """Returns the entities of a dump as JSON without line ends and commas."""
    stripped = (line.strip(b"[], \t\r") for _, line in read_lines(path))
    # As the dumps have it: no spaces between signs.
    return [
        json.dumps(json.loads(line), separators=(",", ":")).encode() for line in stripped if line
    ]


# ---------------------------------------------------------------- parse rate beside rivals


def extract(item: dict[str, Any], number: int, languages: tuple[str, ...]) -> EntityRecord | None:
    """Takes from a whole decoded entity what our reader takes; for the rivals."""
    sites = item.get("sitelinks") or {}
    claims = item.get("claims") or {}
    labels, aliases = item.get("labels") or {}, item.get("aliases") or {}
    names = {labels[k]["value"]: (k, "label") for k in languages if k in labels}
    title = sites["enwiki"]["title"] if "enwiki" in sites else ""
    if title:
        names.setdefault(title.split(" (")[0], ("en", "title"))
    for language in languages:
        for alias in aliases.get(language, ()):
            names.setdefault(alias["value"], (language, "alias"))
    if not sites or not names:
        return None
    descriptions = item.get("descriptions") or {}
    return EntityRecord(
        id=item["id"],
        label=next(iter(names)),
        names=[(name, language, kind) for name, (language, kind) in names.items()],
        line=number,
        description=next((descriptions[k]["value"] for k in languages if k in descriptions), ""),
        types=_ids(claims.get("P31", ())),
        subclass_of=_ids(claims.get("P279", ())),
        image=next(iter(_best(claims.get("P18", ()))), ""),
        enwiki=title,
        sitelinks=len(sites),
        statements=sum(map(len, claims.values())),
        popularity=float(len(sites)),
    )


def _best(statements: Any) -> list[Any]:
    chosen = [s for s in statements if s["rank"] == "preferred"]
    chosen = chosen or [s for s in statements if s["rank"] != "deprecated"]
    return [s["mainsnak"]["datavalue"]["value"] for s in chosen if "datavalue" in s["mainsnak"]]


def _ids(statements: Any) -> list[str]:
    values = (value.get("id") or f"Q{value['numeric-id']}" for value in _best(statements))
    return list(dict.fromkeys(values))


def parse_rates(lines: list[bytes]) -> dict[str, Any]:
    """Returns MB/s of one process, ours and each importable rival's, from alternating rounds."""
    settings = KBSettings()
    item = LineDecoder(settings).item
    readers: dict[str, Callable[[bytes], Any]] = {"openmofi": lambda line: item(line, 1)}
    for name in ("json", "orjson"):
        try:
            loads = importlib.import_module(name).loads
        except ImportError:
            continue
        readers[name] = lambda line, loads=loads: extract(loads(line), 1, settings.languages)
    wanted = [readers["openmofi"](line) for line in lines]
    same = {name: [read(line) for line in lines] == wanted for name, read in readers.items()}
    megabytes = sum(map(len, lines)) / 1e6
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            start = time.process_time()
            for line in lines:
                read(line)
            rates[name].append(megabytes / (time.process_time() - start))
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "entities": len(lines),
        "kb_per_entity": round(megabytes * 1000 / len(lines), 1),
        "mb_per_s": {name: round(rate, 1) for name, rate in median.items()},
        "times_faster": {
            name: round(median["openmofi"] / rate, 2) for name, rate in median.items()
        },
        "same_records": same,
    }


# ---------------------------------------------------------------- synthesised inputs


def cut(entity: dict[str, Any], share: float) -> dict[str, Any]:
    """Leaves out a share of an entity's terms, statements and sitelinks; keeps what is read."""
    kept = {"en", "mul", "P31", "P279", "P18", "enwiki"}
    smaller = dict(entity)
    for field in ("labels", "descriptions", "aliases", "claims", "sitelinks"):
        content = entity.get(field) or {}
        count = int(len(content) * share)
        first = list(content)[:count]
        smaller[field] = {key: content[key] for key in content if key in kept or key in first}
    return smaller


def smaller(lines: list[bytes], kb_per_entity: float | None) -> list[bytes]:
    """Returns entities of about the wanted mean size."""
    if kb_per_entity is None:
        return lines
    share = kb_per_entity * 1000 * len(lines) / sum(map(len, lines))
    cuts = (cut(json.loads(line), share) for line in lines)
    return [json.dumps(entity, separators=(",", ":")).encode() for entity in cuts]


def write_dump(path: Path, lines: list[bytes], gigabytes: float) -> dict[str, int]:
    """Writes a gzipped dump that repeats entities under new ids and English labels."""
    split = [_around_names(line) for line in lines]
    size = count = 0
    random.seed(0)
    with igzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"[\n")
        while size < gigabytes * 1e9:
            parts, label = split[count % len(split)]
            count += 1
            new_label = json.dumps(f"{label} {random.randrange(10**9):x}")[1:-1].encode()
            line = parts[0] + b"Q%d" % count + parts[1] + new_label + parts[2] + b",\n"
            size += file.write(line)
        file.write(b"]\n")
    return {"entities": count, "json_bytes": size, "gz_bytes": path.stat().st_size}


def _around_names(line: bytes) -> tuple[list[bytes], str]:
    """Returns an entity's JSON cut around its id and its English label, and the label."""
    entity = json.loads(line)
    identifier, _ = entity.pop("id"), entity.pop("type")
    labels = entity.pop("labels") or {}
    label = labels.pop("en", {"value": identifier})["value"]
    text = json.dumps({"labels": labels, **entity}, separators=(",", ":")).encode()
    marker = b'{"labels":{'
    comma = b"," if labels else b""
    head = b'{"type":"item","id":"'
    middle = b'","labels":{"en":{"language":"en","value":"'
    return [head, middle, b'"}' + comma + text[len(marker) :]], label


def write_catalogue(path: Path, num_names: int) -> dict[str, int]:
    """Writes entities with one to three names each, two words of a large vocabulary in each."""
    generator = random.Random(0)
    letters = "abcdefghijklmnoprstuvz"
    words = ["".join(generator.choices(letters, k=generator.randint(3, 9))) for _ in range(200_000)]
    names = entities = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "name", "aliases", "description", "weight"])
        while names < num_names:
            own = [
                " ".join(generator.choices(words, k=2)).title()
                for _ in range(generator.randint(1, 3))
            ]
            names += len(own)
            entities += 1
            description = f"{words[entities % len(words)]} of {own[0]}"
            weight = int(generator.paretovariate(1))
            rows.writerow([f"X{entities}", own[0], "|".join(own[1:]), description, weight])
    return {"entities": entities, "names": names, "bytes": path.stat().st_size}


# ---------------------------------------------------------------- whole builds


def build(source: Path, folder: Path, workers: int) -> dict[str, Any]:
    """Builds in a process of its own, and measures it with all its workers."""
    command = [sys.executable, "-c", _BUILD, str(source), str(folder / "kb"), str(workers)]
    script = folder / "build.py"
    script.write_text(_BUILD)
    command = [sys.executable, str(script), *command[3:]]
    start = time.monotonic()
    with (folder / "printed").open("w+") as printed:
        process = subprocess.Popen(command, stdout=printed)
        peak = 0
        while True:
            finished, status, usage = os.wait4(process.pid, os.WNOHANG)
            if finished:
                break
            peak = max(peak, sum(map(_resident, _tree(process.pid))))
            time.sleep(0.1)
        seconds = time.monotonic() - start
        if status:
            raise SystemExit(f"the build failed with status {status}")
        printed.seek(0)
        entities, names, stages, rejected = json.loads(printed.read())
    size = sum(path.stat().st_size for path in (folder / "kb").rglob("*") if path.is_file())
    return {
        "entities_kept": entities,
        "names": names,
        "rejected": rejected,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "stages": stages,
        "peak_rss_mb_of_all_processes": round(peak / 1e6),
        "kb_mb": round(size / 1e6),
    }


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
    except OSError:
        return  # it has just ended


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def end_to_end(lines: list[bytes], gigabytes: float, workers: int) -> dict[str, Any]:
    """Synthesises a dump and builds a knowledge base of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = write_dump(folder / "dump.json.gz", lines, gigabytes)
        built = build(folder / "dump.json.gz", folder, workers)
    megabytes = made["json_bytes"] / 1e6
    rates = {
        "mb_per_s": round(megabytes / built["seconds"], 1),
        "mb_per_cpu_s": round(megabytes / built["cpu_seconds"], 1),
        "entities_per_s": round(made["entities"] / built["seconds"]),
        "reading_mb_per_s": round(megabytes / built["stages"]["reading"], 1),
    }
    return {"dump": made, "workers": workers, **built, **rates}


def names(count: int, workers: int) -> dict[str, Any]:
    """Synthesises a catalogue and builds a knowledge base of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = write_catalogue(folder / "catalogue.csv", count)
        built = build(folder / "catalogue.csv", folder, workers)
    return {"catalogue": made, **built, "names_per_s": round(made["names"] / built["seconds"])}


def main() -> None:
    """Prints the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dump", type=Path)
    parser.add_argument("--end-to-end", type=float, metavar="GB")
    parser.add_argument("--names", type=int)
    parser.add_argument("--kb-per-entity", type=float)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    lines = smaller(real_lines(arguments.dump), arguments.kb_per_entity)
    result: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": sys.version.split()[0]}
    }
    if arguments.end_to_end:
        result["end_to_end"] = end_to_end(lines, arguments.end_to_end, arguments.workers)
    if arguments.names:
        result["names"] = names(arguments.names, arguments.workers)
    if not (arguments.end_to_end or arguments.names):
        result["parse"] = parse_rates(lines)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
