"""Kills a job at random moments and goes on: our runner, Ray Data with checkpoints, Data-Juicer.

    python benchmarks/killed_rivals.py WORK [--kills 20] [--images 20000] [--only ray_data]

Needs an environment with `ray[data]` and `py-data-juicer` beside this package. All three read the
same 20 Parquet files of small JPEGs and captions, link the captions, decode the images with Pillow,
and write a row per pair, with the same function in two processes. Each job is killed with -9, with
all its processes, at a moment drawn from the length of an unbroken run, and begun again as its
makers say until it ends: ours and Ray Data with the same command, Data-Juicer with --resume, or
anew if it says that there is nothing to resume. Prints JSON, per job:

  unbroken         seconds on the clock and CPU-seconds of a run that nobody kills
  lost, doubled    rows missing from the output and rows that are there twice, over all kills
  broken           kills after which the job did not end well, three times over
  again            rows worked on more than once, over all kills; share_again of all rows
  begun_anew       kills after which Data-Juicer found nothing to resume
  seconds          median of the seconds of both runs together less those of an unbroken run
"""

import argparse
import collections
import io
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_SHARDS = 20
_BATCH = 250
_JOBS = ("openmofi", "ray_data", "data_juicer")
_MOST_TRIES = 3
_LIMIT = 600
"""Seconds after which a job counts as hung."""
_PARENT, _TIMES, _STARTED = 1, slice(11, 15), 19
"""Places of the fields of /proc/PID/stat that follow the name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--only", choices=_JOBS)
    parser.add_argument("--run", choices=_JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if arguments.run == "openmofi":
        run_openmofi(work)
    elif arguments.run == "ray_data":
        run_ray_data(work)
    elif arguments.run == "data_juicer":
        run_data_juicer(work, resume=arguments.resume)
    else:
        write_input(work, arguments.images)
        jobs = [arguments.only] if arguments.only else _JOBS
        found = {job: kill_test(job, work, arguments.kills, arguments.images) for job in jobs}
        print(json.dumps({"images": arguments.images, "kills": arguments.kills, **found}, indent=1))


# ---------------------------------------------------------------- the work, the same for all three


class LinkAndDecode:
    """Links captions and decodes images; notes in a file of its own how many it did."""

    def __init__(self, work: Path):
        from openmofi.kb import KnowledgeBase
        from openmofi.link import Linker, WordEncoder

        knowledge = KnowledgeBase.open(work / "kb")
        self.linker = Linker(knowledge, encoder=WordEncoder(knowledge))
        self.notes = work / "notes"

    def __call__(self, captions: list[str], images: list[bytes]) -> tuple[list[int], list[int]]:
        found = self.linker.link(captions, all_candidates=True)
        candidates = np.bincount(found["row"].to_numpy(), minlength=len(captions))
        widths = [decoded_width(data) for data in images]
        with (self.notes / str(os.getpid())).open("a") as file:
            file.write(f"{len(captions)}\n")
        return candidates.tolist(), widths


def decoded_width(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.width


def write_input(work: Path, images: int) -> None:
    from labelling import draw_images

    from openmofi.kb import build_kb

    shutil.rmtree(work, ignore_errors=True)
    (work / "pairs").mkdir(parents=True)
    lines = [f"E{i},product {i:04d},a thing of kind {i % 37}" for i in range(5000)]
    (work / "things.csv").write_text("id,name,description\n" + "\n".join(lines))
    build_kb(work / "things.csv", out=work / "kb")
    photos, rng = draw_images(np.random.default_rng(0)), np.random.default_rng(1)
    for shard, rows in enumerate(np.array_split(np.arange(images), _SHARDS)):
        captions = [f"our product {rng.integers(5000):04d} on a shelf, photo {i}" for i in rows]
        columns = {
            "key": [f"{i:08d}" for i in rows],
            "text": captions,
            "jpg": [photos[rng.integers(len(photos))] for _ in rows],
        }
        pq.write_table(pa.table(columns), work / "pairs" / f"{shard:05d}.parquet")


# ---------------------------------------------------------------- the three jobs


def run_openmofi(work: Path) -> None:
    from openmofi.pairs import find_shards
    from openmofi.shards import freeze_plan, run_shards

    found = find_shards(work / "pairs")
    (work / "out").mkdir(exist_ok=True)
    freeze_plan(work / "out", found.shards, {"job": "link and decode"})
    make = partial(make_shard_function, work)
    totals = run_shards(make, found.shards, out=work / "out", workers=2)
    sys.exit(totals.done != totals.shards)


def make_shard_function(work: Path):
    from openmofi.shards import ShardResult

    link_and_decode = LinkAndDecode(work)

    def shard_function(shard) -> ShardResult:
        made = []
        for batch in pq.ParquetFile(work / "pairs" / shard.path).iter_batches(_BATCH):
            candidates, widths = link_and_decode(
                batch["text"].to_pylist(), batch["jpg"].to_pylist()
            )
            made.append(pa.table({"key": batch["key"], "candidates": candidates, "width": widths}))
        table = pa.concat_tables(made)
        return ShardResult(table, kept=len(table))

    return shard_function


def run_ray_data(work: Path) -> None:
    import ray
    from ray.data.checkpoint import CheckpointConfig

    start_ray(ray)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(
        "key", str(work / "checkpoint"), delete_checkpoint_on_success=False
    )  # deleted, a job killed after its last row would write all rows again
    table = ray.data.read_parquet(str(work / "pairs"))
    table = table.map_batches(
        RayLinkAndDecode,
        fn_constructor_args=(work,),
        concurrency=2,
        batch_size=_BATCH,
        batch_format="pyarrow",
    )
    table.write_parquet(str(work / "out"))


class RayLinkAndDecode:
    def __init__(self, work: Path):
        self.work = LinkAndDecode(work)

    def __call__(self, batch: pa.Table) -> pa.Table:
        candidates, widths = self.work(batch["text"].to_pylist(), batch["jpg"].to_pylist())
        return pa.table({"key": batch["key"], "candidates": candidates, "width": widths})


def run_data_juicer(work: Path, *, resume: bool) -> None:
    import ray
    from data_juicer.config import init_configs
    from data_juicer.core.executor import ExecutorFactory

    recipe = {
        "project_name": "killed",
        "executor_type": "ray_partitioned",
        "dataset_path": str(work / "pairs"),
        "export_path": str(work / "out"),
        "export_type": "parquet",
        "work_dir": str(work / "juicer" / "{job_id}"),
        "partition": {"mode": "manual", "num_of_partitions": _SHARDS},
        "checkpoint": {"enabled": True, "strategy": "every_op"},
        "custom_operator_paths": [str(Path(__file__).with_name("link_and_decode_mapper.py"))],
        "process": [{"link_and_decode_mapper": {"folder": str(work), "batch_size": _BATCH}}],
    }
    (work / "recipe.yaml").write_text(json.dumps(recipe))
    start_ray(ray)
    job = ["--resume", "killed"] if resume else ["--job_id", "killed"]
    # It stores its command line, and goes on only with the same one.
    sys.argv = ["dj-process", "--config", str(work / "recipe.yaml"), *job]
    settings = init_configs()
    executor = ExecutorFactory.create_executor(settings.executor_type)(settings)
    executor.run()


def start_ray(ray) -> None:
    """Starts Ray with two cores, with this folder and the tracer of its usage switched off."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",  # and not one that happens to run on this machine
        num_cpus=4,  # two for the actors; with two, reading would wait for them for ever
        log_to_driver=False,
        include_dashboard=False,
        object_store_memory=2**30,
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    )


# ---------------------------------------------------------------- the kills


def kill_test(job: str, work: Path, kills: int, images: int) -> dict:
    clear(work)
    unbroken = run(job, work)
    assert unbroken.code == 0, unbroken.tail
    assert count(work) == (0, 0, images), count(work)
    drawn = random.Random(0)
    sums: collections.Counter[str] = collections.Counter()
    seconds = []
    for number in range(kills):
        clear(work)
        spent = run(job, work, kill_after=drawn.uniform(0.02, 0.98) * unbroken.seconds).seconds
        for _ in range(_MOST_TRIES):
            again = run(job, work, resume=job == "data_juicer")
            if again.code and job == "data_juicer" and "resume" in again.tail.lower():
                sums["begun_anew"] += 1
                spent += again.seconds
                clear(work, notes=False)
                again = run(job, work)
            spent += again.seconds
            if again.code == 0:
                break
        lost, doubled, rows = count(work)
        worked = sum(int(line) for file in (work / "notes").iterdir() for line in file.open())
        sums["broken"] += again.code != 0
        if again.code:
            print(again.tail, file=sys.stderr)
        sums.update(lost=lost, doubled=doubled, again=max(0, worked - images))
        seconds.append(spent - unbroken.seconds)
        print(
            f"{job} {number}: {lost} {doubled} {rows} {worked} {seconds[-1]:.1f}", file=sys.stderr
        )
    names = ("broken", "lost", "doubled", "again", "begun_anew")
    return {
        "unbroken": {"seconds": round(unbroken.seconds, 1), "cpu_seconds": round(unbroken.cpu, 1)},
        **{name: sums[name] for name in names},
        "share_again": round(sums["again"] / (images * max(kills, 1)), 4),
        "seconds": round(statistics.median(seconds or [0]), 1),
    }


def clear(work: Path, *, notes: bool = True) -> None:
    for name in ("out", "checkpoint", "juicer"):
        shutil.rmtree(work / name, ignore_errors=True)
    if notes:
        shutil.rmtree(work / "notes", ignore_errors=True)
        (work / "notes").mkdir()


class Run:
    """A job that ended or was killed."""

    def __init__(self, code: int, seconds: float, cpu: float, tail: str):
        self.code, self.seconds, self.cpu, self.tail = code, seconds, cpu, tail


def run(job: str, work: Path, *, kill_after: float | None = None, resume: bool = False) -> Run:
    """Runs a job, and kills it and all its processes after some seconds if asked."""
    line = [sys.executable, __file__, str(work), "--run", job, *(["--resume"] if resume else [])]
    began, cpu, seen = time.monotonic(), 0.0, {}
    with (work / "log").open("w+") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        while process.poll() is None:
            seen |= family(process.pid)
            cpu = max(cpu, cpu_seconds(seen))
            if time.monotonic() - began > (kill_after or _LIMIT):
                break
            time.sleep(0.05)
        seconds = time.monotonic() - began
        for pid, started in (seen | family(process.pid)).items():
            kill(pid, started)
        code = process.wait()
        log.seek(0)
        tail = log.read()[-4000:]
    return Run(code, seconds, cpu, tail)


def kill(pid: int, started: str) -> None:
    """Kills a process, unless it has ended and another has its number."""
    try:
        if process_fields(Path("/proc") / str(pid))[_STARTED] == started:
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return


def family(root: int) -> dict[int, str]:
    """Returns a process and all that came of it, with the times at which they began."""
    running = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            running[int(entry.name)] = process_fields(entry)
        except OSError:
            continue
    found = {root}
    while more := {p for p, fields in running.items() if int(fields[_PARENT]) in found} - found:
        found |= more
    return {pid: running[pid][_STARTED] for pid in found if pid in running}


def process_fields(folder: Path) -> list[str]:
    """Returns the fields of /proc/PID/stat after the name."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def cpu_seconds(processes: dict[int, str]) -> float:
    """Returns the CPU time of processes so far, with that of their children that ended."""
    ticks = 0
    for pid in processes:
        try:
            fields = process_fields(Path("/proc") / str(pid))
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[_TIMES])
    return ticks / os.sysconf("SC_CLK_TCK")


def count(work: Path) -> tuple[int, int, int]:
    """Returns how many rows are lost, and how many are there too often, and how many there are."""
    expected = pq.read_table(work / "pairs", columns=["key"])["key"].to_pylist()
    found = collections.Counter()
    for file in committed(work):
        found.update(pq.read_table(file, columns=["key"])["key"].to_pylist())
    lost = sum(key not in found for key in expected)
    return lost, sum(found.values()) - len(found), sum(found.values())


def committed(work: Path) -> list[Path]:
    """Returns the files of a finished output: ours has a list of them, the rivals' is a folder."""
    from openmofi.shards import committed_files, is_job

    out = work / "out"
    return committed_files(out) if is_job(out) else sorted(out.rglob("*.parquet"))


if __name__ == "__main__":
    main()
