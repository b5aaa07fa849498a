"""Worker processes: what they share, how they end, and that nothing of them is left."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from mindeit.data import EvalTransform, Processes, TrainingData, TrainTransform, evaluation_batches
from mindeit.data.images import Source
from mindeit.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux")


class Plain(Source):
    """n grey images; ``trouble`` is what reading the image of that number does."""

    def __init__(self, n: int = 40, **trouble: int):
        self.labels, self.class_names = np.arange(n, dtype=np.int32), tuple(map(str, range(n)))
        self._trouble = trouble

    def read(self, index: int) -> Image.Image:
        if index == self._trouble.get("unreadable"):
            raise UserError(f"cannot read image {self.where(index)}")
        if index == self._trouble.get("bug"):
            raise ZeroDivisionError("a bug in a source")
        return Image.new("RGB", (9, 9), (index, index, index))

    def where(self, index: int) -> str:
        return f"grey {index}"


class Loaded(Plain):
    """The brightness of its images is the number of modules that a worker should not load."""

    def read(self, index: int) -> Image.Image:
        return Image.new("RGB", (9, 9), (len({"mindspore", "torch", "mindeit.runtime"} & set(sys.modules)),) * 3)


def data(workers, source=None, batch_size=4, **options) -> TrainingData:
    transform = TrainTransform(8, auto_augment=None, color_jitter=0, erase_probability=0, mean=(0, 0, 0), std=(1, 1, 1))
    return TrainingData(source or Plain(), transform, batch_size, seed=0, workers=workers, **options)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}


def kept(batches) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(images.copy(), labels.copy()) for images, labels in batches]


def equal(one, two) -> bool:
    return len(one) == len(two) and all(np.array_equal(a, b) for x, y in zip(one, two) for a, b in zip(x, y))


# ---------------------------------------------------------------- what is shared
def test_batches_that_are_kept_stay_as_they_were():
    expected = kept(data(None).epoch(0))
    assert equal(list(data(Processes(2)).epoch(0)), expected) and len(expected) == 10


def test_a_view_keeps_its_batch_and_what_is_dropped_is_lent_again():
    workers = Processes(2)
    views, expected = [], [images[1:3].copy() for images, _ in data(None).epoch(0)]
    for images, _ in data(workers).epoch(0):
        views.append(images[1:3])
    assert all(map(np.array_equal, views, expected))
    size = os.fstat(workers._memory.file).st_size
    del views, images
    gc.collect()
    for epoch in range(5):
        kept(data(workers).epoch(epoch))
    assert os.fstat(workers._memory.file).st_size <= size + 5 * 4096 * 4  # a work for each of the five data sets


def test_passes_may_be_left_early_and_overlap():
    workers = Processes(2)
    train, examined = data(workers), evaluation_batches(Plain(), EvalTransform(8), 4, workers=workers)
    first, second, held = kept(data(None).epoch(0)), kept(data(None).epoch(1)), kept(examined)
    for _ in range(3):
        for _ in train.epoch(0):
            break
    left = iter(train.epoch(0))
    begun = kept([next(left), next(left)])
    assert equal(kept(examined), held)
    assert equal(kept(train.epoch(1)), second)
    assert equal(begun + kept(left), first)


def test_processes_stay_for_all_epochs_and_go_when_they_are_closed():
    before, workers = children(), Processes(3)
    train = data(workers)
    assert children() == before
    seen = set()
    for epoch in range(3):
        kept(train.epoch(epoch))
        seen |= children() - before
    assert len(seen) == 3
    workers.close()
    assert children() == before
    assert equal(kept(train.epoch(1)), kept(data(None).epoch(1)))  # it may be opened again
    del workers, train
    gc.collect()
    assert children() == before


def test_a_worker_loads_neither_mindspore_nor_torch():
    assert all(not images.any() for images, _ in data(Processes(1), Loaded()).epoch(0))


def test_arrays_of_a_source_are_shared_and_not_copied():
    source = Plain()
    source.pixels = np.zeros(64 << 20, np.uint8)
    before, workers = children(), Processes(3)
    kept(data(workers, source).epoch(0))
    own = [psutil.Process(pid).memory_full_info().uss / 2**20 for pid in children() - before]
    assert len(own) == 3 and max(own) < 64


# ---------------------------------------------------------------- errors
def test_what_a_worker_raises_is_raised_in_the_parent(capfd):
    workers = Processes(2)
    with pytest.raises(UserError, match="cannot read image grey 7"):
        kept(data(workers, Plain(unreadable=7)).epoch(0))
    assert capfd.readouterr().err == ""
    with pytest.raises(ZeroDivisionError, match="a bug in a source"):
        kept(data(workers, Plain(bug=7)).epoch(0))
    assert "in read" in capfd.readouterr().err  # where it happened
    assert equal(kept(data(workers).epoch(0)), kept(data(None).epoch(0)))  # the processes are sound


def test_skipped_images_are_listed():
    batches = data(Processes(2), Plain(unreadable=7), skip_bad_images=True).epoch(0)
    kept(batches)
    assert batches.skipped == ["grey 7"]


def test_a_source_that_cannot_be_sent_is_one_line():
    class Local(Plain):
        pass

    with pytest.raises(UserError, match="cannot be sent to worker processes .*python_multiprocessing False"):
        kept(data(Processes(1), Local()).epoch(0))
    with pytest.raises(UserError, match="there are 0 data workers"):
        Processes(0)


def test_too_little_memory_is_one_line():
    code = """
import resource
from test_data_processes import data, Processes
from mindeit.errors import run_script
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
@run_script
def main(argv):
    for _ in data(Processes(1), batch_size=40).epoch(0):
        pass
main()
"""
    done = python(code)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no memory for a batch of 0 MiB: File too large; use a smaller batch_size")


# ---------------------------------------------------------------- ends
PARENT = """
import os, time
from test_data_processes import Processes, children, data
from mindeit.errors import run_script
@run_script
def main(argv):
    train = data(Processes(3))
    next(iter(train.epoch(0)))
    print(*children(), flush=True)
    for epoch in range(10 ** 6):
        for _ in train.epoch(epoch):
            pass
main()
"""


def python(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.path.dirname(__file__),
        **options,
    )


def started() -> tuple[subprocess.Popen, list[int]]:
    """A process at work, and its three workers."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.path.dirname(__file__),
    )
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def alive(pid: int) -> bool:
    """A zombie, which waits for somebody to ask how it ended, is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_ends_the_run_with_one_line(number):
    parent, pids = started()
    assert len(pids) == 3
    os.kill(pids[1], number)
    _, text = parent.communicate(timeout=20)
    assert parent.returncode == 2 and gone(pids)
    assert text.splitlines() == [
        f"error: a data worker process was killed by {number.name} (out of memory?); use fewer workers "
        "(num_parallel_workers), or threads (python_multiprocessing False)"
    ]


def maps_of(pid: int, seconds: float = 20) -> str:
    """What a process maps, once it has taken its first task; on a busy machine one may come late to it."""
    path, end = Path(f"/proc/{pid}/maps"), time.monotonic() + seconds
    while "/memfd:batches" not in path.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    return path.read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_survives_its_parent_and_nothing_is_left(number):
    parent, pids = started()
    assert len(pids) == 3
    for pid in pids:  # memory that no name leads to ends with the last process that maps it
        maps = maps_of(pid)
        assert "/memfd:batches (deleted)" in maps and "/dev/shm" not in maps
    parent.send_signal(number)
    parent.communicate(timeout=20)
    assert parent.returncode == -number and gone(pids)


def test_a_worker_leaves_though_another_process_holds_the_parents_socket():
    """A process that the parent forked, as compilers do, holds copies of its files."""
    code = PARENT.replace("print(", "holder = os.fork(); holder or time.sleep(30) or os._exit(0); print(holder, ")
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=os.path.dirname(__file__)
    )
    holder, *pids = (int(pid) for pid in parent.stdout.readline().split())
    parent.kill()
    parent.wait()
    workers = [pid for pid in pids if pid != holder]
    assert len(workers) == 3 and gone(workers) and alive(holder)
    os.kill(holder, signal.SIGKILL)


def test_signals_for_the_rank_leave_its_workers_at_work():
    parent, pids = started()
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, number)
    time.sleep(1)
    assert parent.poll() is None and all(map(alive, pids))
    parent.kill()
    parent.communicate()


def test_memory_and_open_files_stay_flat_over_40_epochs():
    workers = Processes(2)
    train, sizes = data(workers), []
    for epoch in range(40):
        kept(train.epoch(epoch))
        sizes.append((len(os.listdir("/proc/self/fd")), os.fstat(workers._memory.file).st_size))
    assert sizes[-1] == sizes[5]
