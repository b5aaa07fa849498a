"""Ranks: who this process is among how many, and sums over all of them. mpirun, msrun and srun; Ascend, GPU and CPU.

A rank that fails ends all: it says who it is and leaves at once with its exit code, and the launcher ends the rest.
MindSpore is imported where it is needed, because an exported ONNX file predicts without it.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, NoReturn

import numpy as np

from mindeit.errors import UserError
from mindeit.runtime.meeting import Meeting, disagreements, own_address

if TYPE_CHECKING:
    from mindspore import Parameter

_SCHEDULER = "import mindspore.communication as c; c.init()"
_PR_SET_PDEATHSIG = 1
_WORDS_PER_CALL = 2**24  # 64 MB at once
# Seconds between calls for the scheduler, which only delay the start, and until a rank gives up one that is late in a
# collective on CPU (from 2.10 on; 30 before). Who is gone for good, the launcher notices at once.
_PATIENCE = {"MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1", "MS_CPU_COMM_OP_TIMEOUT": "1800"}
# Until the scheduler gives up a rank that is silent; our own ends with rank 0, msrun's is waited for after a death.
_SILENCE, _SILENCE_UNDER_MSRUN = "1800", "60"
_WAITED_IN_VAIN = re.compile(r"Launch kernel failed[^\n]*(AllReduce|Broadcast)")
# mpirun grants its ranks a quarter of a second after SIGTERM and SIGINT; these it passes on, and they mean the others.
_RELAYED = {signal.SIGUSR1: signal.SIGTERM, signal.SIGUSR2: signal.SIGINT}
# Innermost launcher first: mpirun under Slurm leaves Slurm's variables in place, with the counts of its own daemons.
_SIZE_VARIABLES = ("MS_WORKER_NUM", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_SIZE_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE")


@dataclass(frozen=True)
class Cluster:
    """``rank`` of ``ranks`` processes that compute together, ``local_ranks`` of them on this machine."""

    rank: int = 0
    ranks: int = 1
    local_ranks: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    @cached_property
    def meeting(self) -> Meeting:
        """Lets ranks wait for each other without a time limit. All ranks make theirs together, at the first use."""
        return Meeting(self.rank, self.ranks, _broadcast_bytes, one_machine=self.local_ranks == self.ranks)

    def barrier(self) -> None:
        """Return once every rank has called it, however long that takes."""
        if self.ranks > 1:
            self.meeting.wait()

    def agree(self, values: Mapping[str, Any]) -> None:
        """Check that all ranks pass equal values; else an error on rank 0 says what differs, and ends all."""
        if self.ranks == 1:
            return
        words = self.meeting.gather(json.dumps(values, default=str).encode())
        if self.main:
            differences = disagreements([json.loads(word) for word in words])
            if differences:
                raise UserError(f"the ranks have to agree, but {'; '.join(differences)}")
        self.meeting.release()

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over all ranks, on every rank; in float32 (all that CPU sums): counts are exact below 2**24."""
        if self.ranks == 1:
            return values
        import mindspore as ms

        self.barrier()
        return ms.ops.AllReduce()(ms.Tensor(np.asarray(values, np.float32))).asnumpy().astype(values.dtype)

    def broadcast(self, parameters: Sequence[Parameter]) -> None:
        """Copy the values of rank 0 to every rank, bit for bit. The order of parameters is that of all ranks."""
        if self.ranks == 1 or not parameters:
            return
        import mindspore as ms

        arrays = [_as_array(parameter) for parameter in parameters]
        self.barrier()
        sent = np.frombuffer(_broadcast_bytes(b"".join(array.tobytes() for array in arrays)), np.uint8)
        ends = np.cumsum([array.nbytes for array in arrays])
        for parameter, array, part in zip(parameters, arrays, np.split(sent, ends)):
            value = np.frombuffer(part.tobytes(), array.dtype).reshape(array.shape)
            parameter.set_data(ms.Tensor(value, parameter.dtype))


@contextmanager
def report_late_rank(last_good: Callable[[], str]) -> Iterator[None]:
    """Turn MindSpore's error for a rank that is late into one line; ``last_good`` is the checkpoint to resume from."""
    try:
        yield
    except RuntimeError as error:
        if not _WAITED_IN_VAIN.search(str(error)):
            raise
        raise UserError(
            "this rank waited in vain for another in a collective: 30 s on CPU before MindSpore 2.10, then "
            f"MS_CPU_COMM_OP_TIMEOUT; last good checkpoint: {last_good()}"
        ) from None


def _as_array(parameter: Parameter) -> np.ndarray:
    import mindspore as ms

    known_to_numpy = parameter.dtype != ms.bfloat16
    return parameter.asnumpy() if known_to_numpy else parameter.astype(ms.float32).asnumpy()


def _broadcast_bytes(data: bytes) -> bytes:
    """As int32, which every device sends unaltered, one tensor a call: of several, CPU garbles all but the first."""
    import mindspore as ms

    words = np.frombuffer(data + bytes(-len(data) % 4), np.int32)
    parts = [words[start : start + _WORDS_PER_CALL] for start in range(0, len(words), _WORDS_PER_CALL)]
    send = ms.ops.Broadcast(0)
    return b"".join(send((ms.Tensor(part),))[0].asnumpy().tobytes() for part in parts)[: len(data)]


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


def start(distributed: bool, device_target: str) -> Cluster:
    """Join the other ranks, after ``device.setup``. A single process is a cluster of one."""
    ranks, local_ranks = launched_ranks(), launched_local_ranks()
    if not distributed:
        if ranks > 1:
            raise UserError(f"{ranks} processes were launched, but distributed is False; add --distributed True")
        return Cluster()
    if ranks == 1 and "MS_ROLE" not in os.environ and "OMPI_COMM_WORLD_SIZE" not in os.environ:
        raise UserError("distributed is True, but nothing launched several processes; use mpirun -n N python ...")
    silence = _SILENCE_UNDER_MSRUN if "MS_ROLE" in os.environ else _SILENCE
    for variable, seconds in {**_PATIENCE, "MS_NODE_TIMEOUT": silence}.items():
        os.environ.setdefault(variable, seconds)
    brought_up = False
    if "MS_ROLE" not in os.environ:
        _signal_when_parent_ends(signal.SIGTERM)  # msrun leaves before its workers do, the other launchers never
        for received, meant in _RELAYED.items():
            signal.signal(received, partial(_send_rank, os.getpid(), meant))
        by_mpi = "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ
        by_slurm = "SLURM_STEP_NUM_TASKS" in os.environ and not by_mpi
        brought_up = by_slurm or device_target == "CPU"
        if brought_up:
            _bring_up(*(_meet_by_slurm() if by_slurm else _meet_by_mpi(ranks)))
    import mindspore as ms

    ms.communication.init({"GPU": "nccl", "Ascend": "hccl"}.get(device_target, "mccl"))
    cluster = Cluster(ms.communication.get_rank(), ms.communication.get_group_size(), local_ranks)
    if device_target == "CPU":
        cluster.barrier()  # the meeting exists when a rank exits
    _install_exit_handlers(cluster, quiet=device_target == "CPU", alone=brought_up and device_target == "CPU")
    return cluster


def _send_rank(rank_process: int, meant: signal.Signals, *_: object) -> None:
    if os.getpid() == rank_process:  # mpirun signals forked workers too, which inherit this handler
        os.kill(rank_process, meant)


def _meet_by_mpi(launched: int) -> tuple[int, int, str, int]:
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


def _meet_by_slurm() -> tuple[int, int, str, int]:
    """The same from srun's variables: rank 0 runs on the first node listed; its port follows from the job's step."""
    node = re.match(r"([^\[,]+)(?:\[(\w+))?", os.environ["SLURM_STEP_NODELIST"])
    assert node is not None  # a step has a node
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    address = os.environ.get("MS_SCHED_HOST") or socket.gethostbyname(node[1] + (node[2] or ""))
    return int(os.environ["SLURM_PROCID"]), launched_ranks(), address, 20000 + (job * 16 + step) % 10000


def _bring_up(rank: int, ranks: int, address: str, port: int) -> None:
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


def _install_exit_handlers(cluster: Cluster, quiet: bool, alone: bool) -> None:
    """Let a failing rank name itself and skip MindSpore's exit handlers, which would wait for
    the ranks still at work.

    ``alone``: no launcher waits for those handlers, so a rank that is done skips them too: on CPU they sometimes crash.
    """
    failures: list[int] = []
    show, leave = sys.excepthook, sys.exit

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        failures.append(1)
        show(kind, error, trace)

    def exit_(code: int | str | None = None) -> NoReturn:
        failures[:] = [code if isinstance(code, int) else 1] if code else []
        leave(code)

    def at_exit() -> None:
        if failures:
            text = f"rank {cluster.rank} of {cluster.ranks} ended with exit code {failures[-1]}; this ends all ranks"
            print(text, file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(failures[-1])
        if quiet:  # MindSpore's sockets log to stderr while the process ends, whatever the log level
            sys.stderr.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if alone:
            with suppress(UserError):  # another is gone
                cluster.barrier()  # rank 0 takes the scheduler along
            sys.stdout.flush()
            os._exit(0)

    sys.excepthook, sys.exit = excepthook, exit_
    atexit.register(at_exit)


def _wait_until_open(address: str, port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.1)
    raise UserError(f"the scheduler of the ranks did not start within {seconds:.0f} s at {address}:{port}")


def _end_with_parent() -> None:
    _signal_when_parent_ends(signal.SIGKILL)


def _signal_when_parent_ends(number: signal.Signals) -> None:
    """Linux alone can; elsewhere a killed launcher may leave processes behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
