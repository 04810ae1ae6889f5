"""How much a selection depends on the order of its pairs, and on how many there are.

    python benchmarks/selection_sizes.py measure WORLD MODEL --out RESULT.jsonl
        [--sizes 100 300 1000 5000] [--samples 3] [--shuffles 10] [--rate .03]
    python benchmarks/selection_sizes.py table RESULT.jsonl [MORE ...]
    python benchmarks/selection_sizes.py plot BEFORE.jsonl AFTER.jsonl --out FIGURE.svg

WORLD is what `openmofi demo` leaves: shards/, kb/ and truth.parquet; MODEL an encoder, best one
that was trained on the captions of another seed. `measure` draws samples of the pairs, writes each
as a table whose rows are shuffled again and again, labels every table again, selects, and compares
with the truth; one line of JSON per selection. The largest size has one sample. It runs with older
versions of OpenMOFI, too, which give no interval. Ten minutes on two cores, nearly all of them the
encoder's.
"""

import argparse
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from calibrated_rate import read_truth

from openmofi.config import LabelSettings, SelectSettings
from openmofi.errors import InputError
from openmofi.label import label
from openmofi.select import select


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measuring = verbs.add_parser("measure")
    measuring.add_argument("world", type=Path)
    measuring.add_argument("model")
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--sizes", nargs="+", type=int, default=[100, 300, 1000, 5000])
    measuring.add_argument("--samples", type=int, default=3)
    measuring.add_argument("--shuffles", type=int, default=10)
    measuring.add_argument("--rate", type=float, default=0.03)
    printing = verbs.add_parser("table")
    printing.add_argument("results", nargs="+", type=Path)
    plotting = verbs.add_parser("plot")
    plotting.add_argument("results", nargs=2, type=Path)
    plotting.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    {"measure": measure, "table": print_tables, "plot": plot}[arguments.verb](arguments)


def measure(arguments: argparse.Namespace) -> None:
    pairs = find_shards(arguments.world)
    shown, _ = read_truth(arguments.world / "truth.parquet")
    with arguments.out.open("w") as out:
        for size in arguments.sizes:
            samples = 1 if size == max(arguments.sizes) else arguments.samples
            for sample in range(samples):
                rng = np.random.default_rng([size, sample])
                rows = rng.choice(len(pairs), size, replace=False)
                for shuffle in range(arguments.shuffles):
                    table = pairs.take(pa.array(rng.permutation(rows)))
                    found = one_selection(table, shown, arguments)
                    place = {"size": size, "sample": sample, "shuffle": shuffle}
                    print(json.dumps(place | found), file=out, flush=True)


def find_shards(world: Path) -> pa.Table:
    """Returns key, caption and image bytes of the training pairs."""
    rows = []
    for path in sorted((world / "shards").glob("*.tar")):
        with tarfile.open(path) as archive:
            members = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
        for name, data in members.items():
            if name.endswith(".jpg"):
                caption = members[name[:-3] + "txt"].decode()
                rows.append({"key": name[:-4], "caption": caption, "image": data})
    return pa.Table.from_pylist(rows)


def one_selection(pairs: pa.Table, shown: dict[str, str], arguments: argparse.Namespace) -> dict:
    """Returns what was kept of a table, the estimated rate of wrong labels, and the true one."""
    settings = SelectSettings(
        false_label_rate=arguments.rate, min_images=1, duplicates="keep", max_entities=4
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pq.write_table(pairs, folder / "pairs.parquet")
        kb, model = arguments.world / "kb", arguments.model
        label(
            folder / "pairs.parquet",
            kb=kb,
            model=model,
            out=folder / "i2e",
            settings=LabelSettings(workers=1),
        )
        try:
            summary = select(folder / "i2e", settings=settings)
        except InputError:  # no label passes
            return {"labels": 0, "keys": 0}
        ids = pq.read_table(summary.out / "vocabulary.parquet")["id"].to_pylist()
        keep = pq.read_table(summary.out / "keep.parquet").to_pylist()
    labels = sorted((row["key"], ids[c]) for row in keep for c in row["classes"])
    wrong = sum(shown[key] != entity for key, entity in labels)
    calibration = vars(summary.calibration)
    return {
        "labels": len(labels),
        "digest": hash_of(labels),
        "true": wrong / len(labels),
        "estimated": calibration["estimated_false_label_rate"],
        "low": calibration.get("low_rate"),
        "high": calibration.get("high_rate"),
        "unshown": calibration["unshown_share"],
        "weights": list(vars(summary.weights).values()),
    }


def hash_of(labels: list[tuple[str, str]]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:12]


def read_results(path: Path) -> dict[int, dict[int, list[dict]]]:
    """Returns {size: {sample: its shuffles}}."""
    found: dict[int, dict[int, list[dict]]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["size"], {}).setdefault(row["sample"], []).append(row)
    return found


def print_tables(arguments: argparse.Namespace) -> None:
    """Prints a row of Markdown per size and sample."""
    for path in arguments.results:
        print(f"\n{path.stem}\n")
        print("| pairs | sample | different selections | labels | estimated | interval | true |")
        print("|---|---|---|---|---|---|---|")
        inside = {}
        for size, samples in read_results(path).items():
            for sample, rows in samples.items():
                several = len({row.get("digest") for row in rows})
                first = next((row for row in rows if row["labels"]), rows[0])
                interval = (
                    "-"
                    if first.get("low") is None
                    else f"{decimal(first['low'])} to {decimal(first['high'])}"
                )
                cells = [size, sample + 1, f"{several} of {len(rows)}"]
                cells += [spread(rows, "labels", str), spread(rows, "estimated", decimal)]
                print(f"| {' | '.join(map(str, [*cells, interval]))} | {spread(rows, 'true')} |")
                if first.get("low") is not None:
                    is_inside = first["low"] <= first["true"] <= first["high"]
                    inside.setdefault(size, []).append(is_inside)
        for size, found in inside.items():
            print(f"true rate inside the interval, {size} pairs: {sum(found)} of {len(found)}")


def spread(rows: list[dict], name: str, write=None) -> str:
    """Returns least, median and largest, or the one value there is."""
    values = sorted(row[name] for row in rows if name in row) or [0]
    least, middle, most = (
        (write or decimal)(v) for v in (values[0], values[len(values) // 2], values[-1])
    )
    return least if least == most else f"{least}, {middle}, {most}"


def decimal(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


def plot(arguments: argparse.Namespace) -> None:
    """Draws the labels kept, and the rates estimated and true, before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (name, path) in enumerate(zip(("before", "after"), arguments.results, strict=True)):
        found = read_results(path)
        place, ticks = 0, []
        for size, samples in found.items():
            begin = place
            for rows in samples.values():
                draw_sample(axes[:, column], place, rows, size, found)
                place += 1
            ticks.append(((begin + place - 1) / 2, f"{size:,}"))
            place += 1
        axes[0, column].set_title(name)
        axes[1, column].set_xticks(*map(list, zip(*ticks, strict=True)))
        axes[1, column].set_xlabel("pairs: a column per sample, a mark per order")
    axes[0, 0].set_ylabel("labels kept per pair")
    axes[1, 0].set_ylabel("share of wrong labels")
    axes[1, 1].legend(loc="upper right")
    figure.savefig(arguments.out)


def draw_sample(axes, place: int, rows: list[dict], size: int, found: dict) -> None:
    is_first = place == 0
    xs = place + np.linspace(-0.25, 0.25, len(rows))
    axes[0].plot(xs, [row["labels"] / size for row in rows], "o", ms=3, color="#4a78b8")
    for name, colour, mark in (("estimated", "#4a78b8", "o"), ("true", "#c7702e", "x")):
        values = [row.get(name, np.nan) for row in rows]
        text = name if is_first else None
        axes[1].plot(xs, values, mark, ms=4, color=colour, label=text)
    if rows[0].get("low") is not None:
        text = "interval" if is_first else None
        ends = [rows[0]["low"], rows[0]["high"]]
        axes[1].plot([place, place], ends, lw=6, alpha=0.25, color="#4a78b8", label=text)


if __name__ == "__main__":
    main()
