"""README's line for Slurm under a real Slurm of one node, in a batch script as people write it.

    apt install slurm-wlm munge   (Debian's packages; run as root)
    python benchmarks/slurm.py

Starts munged, slurmctld and slurmd with a configuration of their own on ports of their own, submits
README's `srun` line in a batch script, an array, and the line with `--rank "$SLURM_PROCID"`; says
how many shards each labelled and whether the labels are those of one local process; then ends what
it started. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.dataset as ds

README = Path(__file__).resolve().parents[1] / "README.md"

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


@contextmanager
def cluster(folder: Path):
    """Yields the environment in which Slurm's commands talk to a cluster of this machine."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    folder.chmod(0o755)
    names = {
        "host": socket.gethostname(),
        "folder": folder,
        "cpus": os.cpu_count(),
        "controller_port": free_port(),
        "node_port": free_port(),
    }
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**names))
    environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
         f"--key-file={key}", f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
         f"--seed-file={folder}/munged.seed"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", names["host"]],
    ]  # fmt: skip
    running = []
    try:
        for command in daemons:
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running.append(subprocess.Popen(command, env=environ, **silent))
            time.sleep(2)
        _wait_for_node(environ)
        yield environ
    finally:
        for daemon in reversed(running):
            daemon.terminate()
            daemon.wait(timeout=30)


def _wait_for_node(environ: dict[str, str]) -> None:
    for _ in range(30):
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environ, capture_output=True, text=True
        )
        if found.stdout.strip() == "idle":
            return
        time.sleep(1)
    raise SystemExit(f"the node did not become idle: {found.stdout}{found.stderr}")


def submit(environ, folder: Path, line: str, *options: str) -> tuple[int, str]:
    """Runs a batch script to its end and returns (exit code, what it printed)."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\nset -e\n{line}\n")
    out = folder / "job-%a.log"
    command = ["sbatch", "--wait", f"--output={out}", *options, str(script)]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True)
    logs = sorted(folder.glob("job-*.log"))
    printed = "".join(log.read_text() for log in logs)
    for log in logs:
        log.unlink()
    return ended.returncode, printed


def shards_done(out: Path) -> tuple[int, int]:
    """Returns how many shards have commits, and how many there are."""
    said = subprocess.run(
        [sys.executable, "-m", "openmofi", "status", str(out), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(said.stdout)["totals"]
    return found["done"], found["shards"]


def labels(out: Path):
    """Returns the rows of a finished job, sorted."""
    order = [("shard", "ascending"), ("key", "ascending")]
    return ds.dataset(out / "labels").to_table().sort_by(order).to_pylist()


def several_shards(world: Path, folder: Path) -> None:
    """Writes the shards of the world six times under other names."""
    folder.mkdir()
    for number in range(6):
        for file in (world / "shards").iterdir():
            shutil.copy(file, folder / f"{number}-{file.name}")


def readme_line(world: Path, out: Path) -> str:
    """Returns README's line for srun, on shards beside the output and the demo's model."""
    line = next(line for line in README.read_text().splitlines() if line.startswith("srun "))
    words = line.split()
    words[words.index("openmofi")] = f"{sys.executable} -m openmofi"
    for given, ours in (("shards", out.parent / "shards"), ("kb", world / "kb"), ("i2e", out)):
        words[words.index(given)] = str(ours)
    words[words.index("openai/clip-vit-base-patch32")] = str(world / "runs/clip/model")
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, help="output of `openmofi demo`; else a small one")
    world = parser.parse_args().world
    missing = [name for name in ("munged", "slurmctld", "slurmd") if not shutil.which(name)]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found: apt install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="openmofi-slurm-"))
    if world is None:
        world = folder / "world"
        command = [sys.executable, "-m", "openmofi", "demo", "--size", "small", "--out", world]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    world = world.resolve()
    several_shards(world, folder / "shards")
    local = readme_line(world, folder / "local").removeprefix("srun ")
    subprocess.run(local.replace("--engine rank", "--workers 1").split(), check=True)
    with cluster(folder) as environ:
        tasks = ("--ntasks=2", "--cpus-per-task=1", "--oversubscribe", "--mem=0")
        cases = {
            "README's line, two tasks": (readme_line(world, folder / "a"), tasks, "a"),
            "an array of two, without srun": (
                readme_line(world, folder / "b").removeprefix("srun "), ("--array=3,5",), "b"
            ),
            "srun in an array": (readme_line(world, folder / "c"), (*tasks, "--array=0-1"), "c"),
            'with --rank "$SLURM_PROCID"': (
                readme_line(world, folder / "d")
                + ' --rank "$SLURM_PROCID" --world-size "$SLURM_NTASKS"', tasks, "d"
            ),
            "two tasks, without srun": (
                readme_line(world, folder / "e").removeprefix("srun "), tasks, "e"
            ),
        }  # fmt: skip
        version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout
        print(version.strip())
        for name, (line, options, place) in cases.items():
            code, printed = submit(environ, folder, line, *options)
            out = folder / place
            if not (out / "plan.parquet").is_file():
                said = [text for text in printed.splitlines() if text.startswith("error")]
                print(f"{name}: exit {code}, {said[0] if said else printed[-500:]}")
                continue
            done, all_shards = shards_done(out)
            same = done == all_shards and labels(out) == labels(folder / "local")
            print(f"{name}: exit {code}, {done} of {all_shards} shards, labels as one: {same}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
