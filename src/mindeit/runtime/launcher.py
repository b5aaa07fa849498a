"""What launched the ranks, and how they find each other: mpirun, msrun and srun."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from mindeit.errors import UserError
from mindeit.runtime.meeting import own_address

_SCHEDULER = "import mindspore.communication as c; c.init()"
_PR_SET_PDEATHSIG = 1
# Innermost launcher first: mpirun under Slurm leaves Slurm's variables in place, with the counts of its own daemons.
_SIZE_VARIABLES = ("MS_WORKER_NUM", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_SIZE_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE")


def launched_ranks() -> int:
    """How many processes the launcher started (mpirun of OpenMPI or MPICH, msrun, srun): 1 where there is none."""
    for variable in _SIZE_VARIABLES:
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return 1


def launched_local_ranks() -> int:
    """How many of them run on this machine: all of them where the launcher does not say (msrun)."""
    for variable in _LOCAL_SIZE_VARIABLES:
        number = re.match("[1-9][0-9]*", os.environ.get(variable, ""))
        if number:  # Slurm writes 8(x2),4
            return int(number[0])
    return launched_ranks()


def under_mpirun() -> bool:
    """Of OpenMPI or MPICH."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ


def mpi_of_mindspore() -> Any:
    """All ranks, where mpirun launched them for GPU or Ascend and mpi4py uses the same MPI library; else None."""
    if not under_mpirun():
        return None
    os.environ.update(MPI4PY_RC_INITIALIZE="0", MPI4PY_RC_FINALIZE="0")  # a second library must not start
    try:
        from mpi4py import MPI  # optional: the devices can share as well
    except (ImportError, RuntimeError):
        return None
    ready = MPI.Is_initialized() and not MPI.Is_finalized()
    return MPI.COMM_WORLD if ready and MPI.COMM_WORLD.size == launched_ranks() else None


def meet_by_mpi(launched: int) -> tuple[int, int, str, int]:
    """Rank, ranks, and the scheduler's address and port. MPI is not needed after that, and is finalized."""
    try:
        from mpi4py import MPI  # optional: for mpirun on CPU alone
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpirun on CPU needs mpi4py and an MPI library ({error})") from None
    world = MPI.COMM_WORLD
    rank, ranks = world.Get_rank(), world.Get_size()
    if ranks != launched:
        raise UserError(f"{launched} processes were launched, but mpi4py sees {ranks}: use its MPI library's mpirun")
    one_node = ranks == int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", 0))
    mine = os.environ.get("MS_SCHED_HOST") or ("127.0.0.1" if one_node else own_address())
    address, port = world.bcast((mine, _free_port()))
    MPI.Finalize()
    for variable in [name for name in os.environ if name.startswith("OMPI_")]:
        del os.environ[variable]  # or MindSpore takes the native path, which CPU lacks
    return rank, ranks, address, port


def meet_by_slurm() -> tuple[int, int, str, int]:
    """The same from srun's variables: rank 0 runs on the first node listed; its port follows from the job's step."""
    node = re.match(r"([^\[,]+)(?:\[(\w+))?", os.environ["SLURM_STEP_NODELIST"])
    assert node is not None  # a step has a node
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    address = os.environ.get("MS_SCHED_HOST") or socket.gethostbyname(node[1] + (node[2] or ""))
    return int(os.environ["SLURM_PROCID"]), launched_ranks(), address, 20000 + (job * 16 + step) % 10000


def bring_up(rank: int, ranks: int, address: str, port: int) -> None:
    """Start MindSpore's own cluster, a scheduler and workers, as no launcher did it."""
    os.environ.update(MS_WORKER_NUM=str(ranks), MS_SCHED_HOST=address, MS_SCHED_PORT=str(port))
    if rank == 0:
        _start_scheduler()
    _wait_until_open(address, port)  # who calls before the scheduler listens waits a minute before calling again
    os.environ.update(MS_ROLE="MS_WORKER", MS_NODE_ID=str(rank))


def _start_scheduler() -> None:
    """The scheduler runs until the last rank has left; the kernel ends it with this process at the latest."""
    subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER],
        env={**os.environ, "MS_ROLE": "MS_SCHED"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,
        start_new_session=True,  # mpirun signals whole process groups; the ranks still need it when they exit
    )


def _wait_until_open(address: str, port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.1)
    raise UserError(f"the scheduler of the ranks did not start within {seconds:.0f} s at {address}:{port}")


def _end_with_parent() -> None:
    signal_when_parent_ends(signal.SIGKILL)


def signal_when_parent_ends(number: signal.Signals) -> None:
    """Linux alone can; elsewhere a killed launcher may leave processes behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
