"""Finds this process's part of a job in the environment that its launcher sets.

Slurm: <https://slurm.schedmd.com/srun.html>, output environment variables, and job_array.html;
torchrun: the variables of torch.distributed.run; Open MPI: OMPI_COMM_WORLD_*; MPICH, Intel MPI and
MVAPICH: PMI_* and MV2_*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from openmofi.errors import SettingsError

_LAUNCHERS = {
    # Launchers that run inside a Slurm step come first: their numbers are the right ones then.
    "torchrun": ("RANK", "WORLD_SIZE"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MVAPICH": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    "MPI": ("PMI_RANK", "PMI_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
}


class Rank(NamedTuple):
    """This process's number among the `size` that share a job, and where it comes from."""

    number: int
    size: int
    launcher: str


def find_rank(environ: Mapping[str, str]) -> Rank | None:
    """Returns the rank that torchrun, MPI or Slurm gave this process, or None.

    The tasks of a Slurm array share the job; with srun inside, the steps of all tasks share it.
    A batch script outside srun has no rank, though Slurm sets SLURM_PROCID=0 there.

    Raises:
        SettingsError: the variables are not numbers, or the array's numbers have gaps.
    """
    array = _array_task(environ)
    for launcher, names in _LAUNCHERS.items():
        if not all(environ.get(name) for name in names):
            continue
        number, size = (_number(environ, name) for name in names)
        if not 0 <= number < size:
            raise SettingsError(f"{names[0]}={number} is not a rank below {names[1]}={size}.")
        if array is None:
            return Rank(number, size, launcher)
        return Rank(array.number * size + number, array.size * size, f"{launcher} in an array")
    return array


def choose_rank(rank: int | None, world_size: int | None, environ: Mapping[str, str]) -> Rank:
    """Returns the given rank, or else the launcher's.

    Raises:
        SettingsError: only one of the two is given, or neither and there is no launcher; or the
            launcher gives this process another number among as many.
    """
    if (rank is None) != (world_size is None):
        raise SettingsError("Give both --rank and --world-size, or neither.")
    if rank is None or world_size is None:
        found = find_rank(environ)
        if found is None:
            raise SettingsError(
                "--engine rank finds no rank in the environment of this process; start it with "
                "srun, torchrun, mpirun or as a Slurm array, or give --rank and --world-size."
            )
        return found
    found = find_rank(environ)
    if found and found.size == world_size and found.number != rank:
        raise SettingsError(
            f"--rank {rank} of {world_size}, but {found.launcher} started this process as "
            f"{found.number} of {found.size} (a shell expands $SLURM_PROCID before srun sees it); "
            "leave out --rank and --world-size."
        )
    return Rank(rank, world_size, "given")


def _array_task(environ: Mapping[str, str]) -> Rank | None:
    names = [f"SLURM_ARRAY_TASK_{part}" for part in ("ID", "COUNT", "MIN", "MAX")]
    if not all(environ.get(name) for name in names):
        return None
    task, count, first, last = (_number(environ, name) for name in names)
    step = (last - first) // max(count - 1, 1)
    if count > 1 and (first + step * (count - 1) != last or (task - first) % step):
        raise SettingsError(
            f"The Slurm array numbers {count} tasks from {first} to {last} with gaps; number them "
            f"evenly (--array=0-{count - 1}), or give --rank and --world-size."
        )
    return Rank((task - first) // max(step, 1), count, "a Slurm array")


def _number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except ValueError:
        raise SettingsError(f"{name}={environ[name]!r} is not a number.") from None
