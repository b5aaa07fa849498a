"""Ranks: who this process is among how many, and sums over all of them. mpirun, msrun and srun; Ascend, GPU and CPU.

A rank that fails ends all: it says who it is and leaves at once with its exit code, and the launcher ends the rest.
MindSpore is imported where it is needed, because an exported ONNX file predicts without it.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, NoReturn

import numpy as np

from mindeit.errors import UserError
from mindeit.runtime import launcher
from mindeit.runtime.meeting import Meeting, disagreements

if TYPE_CHECKING:
    from mindspore import Parameter

_WORDS_PER_CALL = 2**24  # 64 MB at once
# Seconds between calls for the scheduler, which only delay the start, and until a rank gives up one that is late in a
# collective on CPU (from 2.10 on; 30 before). Who is gone for good, the launcher notices at once.
_PATIENCE = {"MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1", "MS_CPU_COMM_OP_TIMEOUT": "1800"}
# Until the scheduler gives up a rank that is silent; our own ends with rank 0, msrun's is waited for after a death.
_SILENCE, _SILENCE_UNDER_MSRUN = "1800", "60"
_WAITED_IN_VAIN = re.compile(r"Launch kernel failed[^\n]*(AllReduce|Broadcast)")
# mpirun grants its ranks a quarter of a second after SIGTERM and SIGINT; these it passes on, and they mean the others.
_RELAYED = {signal.SIGUSR1: signal.SIGTERM, signal.SIGUSR2: signal.SIGINT}


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
        return Meeting(self.rank, self.ranks, _share_bytes, one_machine=self.local_ranks == self.ranks)

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

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """The arrays of all ranks, bit for bit and in the order of ranks, on rank 0; nothing on the others."""
        if self.ranks == 1:
            return [array]
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        words = self.meeting.gather(content.getvalue())
        self.meeting.release()
        return [np.load(io.BytesIO(word), allow_pickle=False) for word in words]

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


def _share_bytes(data: bytes) -> bytes:
    """Rank 0's bytes on every rank: over the MPI that MindSpore has begun, without it by the devices."""
    world = launcher.mpi_of_mindspore()
    return _broadcast_bytes(data) if world is None else world.bcast(data)


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


def start(distributed: bool, device_target: str) -> Cluster:
    """Join the other ranks, after ``device.setup``. A single process is a cluster of one."""
    ranks, local_ranks = launcher.launched_ranks(), launcher.launched_local_ranks()
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
        # msrun leaves before its workers do, the other launchers never
        launcher.signal_when_parent_ends(signal.SIGTERM)
        for received, meant in _RELAYED.items():
            signal.signal(received, partial(_send_rank, os.getpid(), meant))
        by_slurm = "SLURM_STEP_NUM_TASKS" in os.environ and not launcher.under_mpirun()
        brought_up = by_slurm or device_target == "CPU"
        if brought_up:
            launcher.bring_up(*(launcher.meet_by_slurm() if by_slurm else launcher.meet_by_mpi(ranks)))
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
