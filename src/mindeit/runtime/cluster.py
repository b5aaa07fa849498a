"""Ranks: who this process is among how many, and sums over all of them. mpirun and msrun; Ascend, GPU and CPU."""
from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from mindeit.errors import UserError

_SCHEDULER = "import mindspore.communication as c; c.init()"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Cluster:
    """``rank`` of ``ranks`` processes that compute together."""

    rank: int = 0
    ranks: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over all ranks, on every rank; in float32 (all that CPU sums): counts are exact below 2**24."""
        if self.ranks == 1:
            return values
        from mindspore import Tensor, ops

        return ops.AllReduce()(Tensor(np.asarray(values, np.float32))).asnumpy().astype(values.dtype)


def launched_ranks() -> int:
    """How many processes the launcher started: 1 where there is none."""
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MS_WORKER_NUM"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return 1


def start(distributed: bool, device_target: str) -> Cluster:
    """Join the other ranks, after ``device.setup``. A lone process is a cluster of one."""
    ranks = launched_ranks()
    if not distributed:
        if ranks > 1:
            raise UserError(f"{ranks} processes were launched, but distributed is False; add --distributed True")
        return Cluster()
    if ranks == 1 and "MS_ROLE" not in os.environ and "OMPI_COMM_WORLD_SIZE" not in os.environ:
        raise UserError("distributed is True, but nothing launched several processes; use mpirun -n N python ...")
    if device_target == "CPU" and "MS_ROLE" not in os.environ:
        _bring_up_cpu()
    from mindspore import communication

    communication.init({"GPU": "nccl", "Ascend": "hccl"}.get(device_target, "mccl"))
    return Cluster(communication.get_rank(), communication.get_group_size())


def _bring_up_cpu() -> None:
    """MindSpore has no mpirun for CPU, but a scheduler of its own: let MPI say who is who, and hand that over."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise UserError(f"mpirun on CPU needs mpi4py and an MPI library ({error})") from None
    world = MPI.COMM_WORLD
    rank, ranks = world.Get_rank(), world.Get_size()
    host, port = world.bcast((socket.gethostname(), _free_port()) if rank == 0 else None)
    address = "127.0.0.1" if ranks == int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", 0)) else host
    for variable in [name for name in os.environ if name.startswith("OMPI_")]:
        del os.environ[variable]  # or MindSpore takes the native path, which CPU lacks
    os.environ.update(MS_WORKER_NUM=str(ranks), MS_SCHED_HOST=address, MS_SCHED_PORT=str(port))
    if rank == 0:
        _start_scheduler()
        _wait_until_open(address, port)
    world.Barrier()  # a rank that calls before the scheduler listens waits a minute before it calls again
    os.environ.update(MS_ROLE="MS_WORKER", MS_NODE_ID=str(rank))
    atexit.register(_silence_farewell)


def _start_scheduler() -> None:
    """It runs until the last rank has left, and no longer than this one: the kernel ends it with its parent."""
    subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER],
        env={**os.environ, "MS_ROLE": "MS_SCHED"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _silence_farewell() -> None:
    """MindSpore's sockets log to stderr while the process ends, whatever the log level; nothing of ours comes after."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _wait_until_open(address: str, port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.1)
    raise UserError(f"the scheduler of the ranks did not start within {seconds:.0f} s at {address}:{port}")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
