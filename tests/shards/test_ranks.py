"""The rank of a process, from the environments that launchers make."""

import pytest

from openmofi.errors import SettingsError
from openmofi.shards.ranks import choose_rank, find_rank

_STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
_ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "3",
    "SLURM_ARRAY_TASK_MIN": "5",
    "SLURM_ARRAY_TASK_MAX": "9",
}
_BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "8"}
_TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
_OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "5"}


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        (_STEP, (1, 4)),
        (_ARRAY, (1, 3)),
        (_BATCH | _ARRAY, (1, 3)),
        (_STEP | _ARRAY, (5, 12)),
        (_ARRAY | dict.fromkeys(["SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"], "7")
         | {"SLURM_ARRAY_TASK_COUNT": "1"}, (0, 1)),
        (_TORCHRUN, (3, 8)),
        (_STEP | _TORCHRUN, (3, 8)),
        (_STEP | _OPEN_MPI, (2, 5)),  # srun started the daemons of mpirun
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2)),
        ({"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"}, (1, 2)),
    ],
)  # fmt: skip
def test_every_launcher_numbers_its_processes(environ, rank):
    assert find_rank(environ)[:2] == rank
    assert choose_rank(None, None, environ)[:2] == rank


@pytest.mark.parametrize("environ", [{}, _BATCH, {"RANK": "1"}, {"RANK": "", "WORLD_SIZE": "2"}])
def test_without_a_launcher_both_numbers_must_be_given(environ):
    assert find_rank(environ) is None
    assert choose_rank(1, 2, environ)[:2] == (1, 2)
    with pytest.raises(SettingsError, match="start it with srun"):
        choose_rank(None, None, environ)


def test_all_tasks_of_an_array_with_steps_share_the_job():
    ranks = [
        find_rank(_STEP | _ARRAY | {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_PROCID": str(process)})
        for task in (5, 7, 9)
        for process in range(4)
    ]
    assert [rank.number for rank in ranks] == list(range(12))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (_STEP | {"SLURM_PROCID": "four"}, "SLURM_PROCID='four' is not a number"),
        (_STEP | {"SLURM_PROCID": "4"}, "is not a rank below SLURM_STEP_NUM_TASKS=4"),
        (_ARRAY | {"SLURM_ARRAY_TASK_MAX": "12"}, "with gaps"),
        (_ARRAY | {"SLURM_ARRAY_TASK_ID": "6"}, "with gaps"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environ, said):
    with pytest.raises(SettingsError, match=said):
        find_rank(environ)


def test_a_given_rank_may_not_contradict_the_launcher():
    assert choose_rank(1, 4, _STEP)[:2] == (1, 4)
    assert choose_rank(0, 3, _STEP)[:2] == (0, 3)  # another numbering of one's own
    with pytest.raises(SettingsError, match="srun started this process as 1 of 4"):
        choose_rank(0, 4, _STEP)
    for given in ((1, None), (None, 2)):
        with pytest.raises(SettingsError, match="both --rank and --world-size"):
            choose_rank(*given, _STEP)
