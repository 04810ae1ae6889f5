"""Commands that are killed at a random moment of their work, or find the disk full."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))  # no file may grow beyond it
from openmofi.cli import main
main(sys.argv[1:])
"""


def records(job: Path) -> list[Path]:
    """Returns the records of a job's finished shards."""
    return [*(job / "_done").glob("[!.]*.json")]


def kill_at_random(line: list, job: Path, rng: random.Random) -> None:
    """Starts a command and kills it, with its workers, within its next four shards."""
    # its own process group, so that workers are killed with it
    process = subprocess.Popen(line, start_new_session=True, stdout=subprocess.DEVNULL)
    wanted = len(records(job)) + rng.randrange(4)
    while process.poll() is None and len(records(job)) < wanted:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.1))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def run_on_a_full_disk(arguments: list, *, most: int) -> subprocess.CompletedProcess:
    """Runs the command line where no file may be larger than `most` bytes."""
    line = [sys.executable, "-c", FULL_DISK.format(most=most), *arguments]
    return subprocess.run(line, capture_output=True, text=True)
