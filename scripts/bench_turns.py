"""Candidates that take turns, each in a process of its own, so that a machine's other work meets them all."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Callable

from mindeit.errors import UserError
from mindeit.runtime.environment import machine

if TYPE_CHECKING:
    from mindspore import nn

OWN = "MinDeiT"
STOCK = "MinDeiT, stock"  # MindSpore's own operators
BF16 = "MinDeiT bf16"
ENVIRONMENT = {STOCK: {"MINDEIT_NATIVE": "0"}}
# What makes everyone use AVX2 on a machine that has more.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "CXXFLAGS": "-march=x86-64-v3"}
# One turn: seconds by the clock, and of CPU by all threads.
Turn = Callable[[], tuple[float, float]]


def add_options(parser: argparse.ArgumentParser, titles: Iterable[str], rounds: int) -> None:
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--only", nargs="+", choices=tuple(titles), help="candidates; all are the default")
    parser.add_argument("--avx2", action="store_true", help="as on a machine without AVX-512")
    parser.add_argument("--worker", choices=tuple(titles), help=argparse.SUPPRESS)


# -- a candidate's process: says each result as a line of JSON


def timed(step: Callable[[], object]) -> tuple[float, float]:
    start, start_cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - start, time.process_time() - start_cpu


def at_level(model: nn.Cell, amp_level: str) -> nn.Cell:
    """For `serve`: a CPU that has no products in bfloat16 is left out."""
    from mindeit.kernels import precision
    from mindeit.kernels.native import bfloat16

    if amp_level == "bf16" and bfloat16.unavailable():
        raise ImportError(bfloat16.unavailable())
    return precision.apply(model, amp_level)


def serve(make: Callable[[], Turn], turns: Iterable = sys.stdin) -> None:
    """``make`` prepares the candidate and takes its first step."""
    try:
        start = time.perf_counter()
        turn = make()
        _say(first_call=time.perf_counter() - start)
    except ImportError as error:
        return _say(left_out=str(error))
    for _ in turns:
        seconds, cpu = turn()
        _say(seconds=seconds, cpu=cpu, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return None


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


# -- the process that asks them in turn


class Worker:
    """A candidate's process, and what it said."""

    def __init__(self, title: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.title, self.clock, self.processor, self.peak = title, [], [], 0
        quiet = {"OMP_WAIT_POLICY": "passive", "GLOG_v": "3"}  # idle candidates may not spin
        self.process = subprocess.Popen(
            command,
            env={**quiet, **os.environ, **environment},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        facts = self.listen()
        self.runs = "left_out" not in facts
        fact = f"first call {facts['first_call']:6.1f} s" if self.runs else f"left out: {facts['left_out']}"
        print(f"{title:20} {fact}", flush=True)

    @property
    def seconds(self) -> float:
        return statistics.median(self.clock)

    @property
    def cpu(self) -> float:
        return statistics.median(self.processor)

    def listen(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"the process of {self.title} ended with exit code {self.process.wait()}; see above for why")

    def turn(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # listening tells that it has ended
            print(file=self.process.stdin, flush=True)
        self.hear()

    def hear(self) -> None:
        facts = self.listen()
        self.clock.append(facts["seconds"])
        self.processor.append(facts["cpu"])
        self.peak = max(self.peak, facts["peak"])

    def end(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.terminate()


def compare(script: str, titles: Iterable[str], arguments: Sequence[str], options: argparse.Namespace) -> list[Worker]:
    """Run every candidate in turn; those that cannot are left out with a word."""
    from mindeit.kernels.native.library import library

    os.environ.update(AVX2 if options.avx2 else {})
    print(f"{machine()}; {OWN}'s operators: {library().form}{' (all limited to AVX2)' if options.avx2 else ''}")
    with contextlib.ExitStack() as stack:
        workers = []
        for title in options.only or titles:
            command = [sys.executable, os.path.abspath(script), *arguments, "--worker", title]
            worker = Worker(title, command, ENVIRONMENT.get(title, {}))
            stack.callback(worker.end)
            workers += [worker] * worker.runs
        if not workers:
            raise UserError("no candidate is left to measure")
        for _ in range(options.rounds):
            for worker in workers:
                worker.turn()
    return workers


def report(workers: Sequence[Worker], batch_size: int, *, cpu: bool = True) -> None:
    """Medians, and how many times as fast as each other candidate the first one is. ``cpu``: also by CPU time."""
    own = workers[0]
    for worker in workers:
        by_cpu = f" ({1000 * worker.cpu:.0f} of CPU)" if cpu else ""
        rate = f"{batch_size / worker.seconds:.1f} images/s"
        print(f"{worker.title:20} {1000 * worker.seconds:7.0f} ms{by_cpu}, {rate}, peak {worker.peak / 2**30:.2f} GiB")
        if worker is not own:
            by_cpu = f" ({worker.cpu / own.cpu:.2f} by CPU time)" if cpu else ""
            print(
                f"{'':20} {own.title} is {worker.seconds / own.seconds:.2f} times as fast{by_cpu} "
                f"with {own.peak / worker.peak:.2f} times its peak memory"
            )
