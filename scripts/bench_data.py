"""Images per second and CPU ms per image of the data pipeline, beside PyTorch's and MindCV's where they are installed.

    python scripts/bench_data.py                       # training with and without repeated augmentation, evaluation
    python scripts/bench_data.py --workers 2 --images 1024 --rounds 3
    python scripts/bench_data.py --kinds eval "eval, uint8"       # what a GPU or Ascend asks for beside what a CPU does
    python scripts/bench_data.py --scaling 1 2 4 8     # MinDeiT alone: threads and processes, by their number
    python scripts/bench_data.py --lock                # share of its time that a thread holds Python's lock (py-spy)

The folder it reads is made of images that ship with scikit-learn, cut to 500x375 JPEGs. All candidates read the same
files with the same number of workers, one after another, round by round; the best round of each counts. On a machine
with other work to do the CPU time is the steadier of the two figures.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from mindeit.data import (
    EvalTransform,
    Processes,
    Threads,
    TrainingData,
    TrainTransform,
    Workers,
    evaluation_batches,
    open_source,
)

SIZE, MEAN, STD = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY = "rand-m9-mstd0.5-inc1"
Candidate = Callable[[], Iterable]  # one pass over batches; its items begin with the images


def make_folder(root: str, count: int) -> None:
    """``count`` JPEGs of 500x375 in ten classes, in ``train/`` and (the same files) ``val/``."""
    from sklearn.datasets import load_sample_images

    images = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = os.path.join(root, "train", f"class{number % 10}")
        os.makedirs(folder, exist_ok=True)
        image = images[number % len(images)]
        left, top = int(rng.integers(image.width - 500)), int(rng.integers(image.height - 375))
        image.crop((left, top, left + 500, top + 375)).save(os.path.join(folder, f"{number}.jpg"), quality=90)
    os.symlink(os.path.join(root, "train"), os.path.join(root, "val"))


def ours(root: str, kind: str, batch_size: int, workers: Workers) -> Candidate:
    source = open_source("image_folder", root, "val" if kind.startswith("eval") else "train", cache_dir=root)
    if kind.startswith("eval"):
        uint8 = kind.endswith("uint8")
        batches = evaluation_batches(source, EvalTransform(SIZE, 0.875), batch_size, workers=workers, uint8=uint8)
        return lambda: batches
    repeats = 3 if kind == "train, 3 repeats" else 1
    data = TrainingData(
        source, TrainTransform(SIZE, auto_augment=POLICY), batch_size, seed=0, repeats=repeats, workers=workers
    )
    return lambda: data.epoch(0)


def torch_timm(root: str, kind: str, args: argparse.Namespace) -> Candidate:
    """torch DataLoader over torchvision's ImageFolder with timm's transforms; repeats as DeiT's sampler orders them."""
    import torch
    from timm.data import auto_augment, create_transform
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    posterize = auto_augment.NAME_TO_OP["PosterizeIncreasing"]  # raises at 0 bits with a current Pillow
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **look: posterize(image, max(bits, 1), **look)
    if kind == "eval":
        transform = transforms.Compose(
            [
                transforms.Resize(256, interpolation=3),
                transforms.CenterCrop(SIZE),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
    else:
        transform = create_transform(
            SIZE,
            is_training=True,
            color_jitter=0.3,
            auto_augment=POLICY,
            interpolation="bicubic",
            re_prob=0.25,
            re_mode="pixel",
            re_count=1,
        )
    data = datasets.ImageFolder(os.path.join(root, "train"), transform)
    repeats = 3 if kind == "train, 3 repeats" else 1
    kept = len(data) // 256 * 256 if repeats > 1 else len(data)
    order = range(len(data)) if kind == "eval" else np.random.default_rng(0).permutation(len(data))
    indices = [int(i) for i in order for _ in range(repeats)][:kept]
    return lambda: torch.utils.data.DataLoader(
        data, args.batch_size, sampler=indices, num_workers=args.workers, drop_last=kind != "eval"
    )


def mindcv(root: str, kind: str, args: argparse.Namespace) -> Candidate:
    """MindCV's own pipeline and its own RandAugment (which is not timm's)."""
    from mindcv.data import create_dataset, create_loader, create_transforms

    if kind == "train, 3 repeats":
        raise ImportError("its repeated augmentation needs several ranks")
    training = kind != "eval"
    options = {"auto_augment": "randaug-m9-mstd0.5-inc1", "re_prob": 0.25} if training else {"crop_pct": 0.875}
    transform = create_transforms(
        dataset_name="imagenet", image_resize=SIZE, is_training=training, interpolation="bicubic", **options
    )
    data = create_dataset(
        name="imagenet",
        root=root,
        split="train" if training else "val",
        shuffle=training,
        num_parallel_workers=args.workers,
    )
    loader = create_loader(
        data,
        args.batch_size,
        is_training=training,
        transform=transform,
        num_classes=10,
        drop_remainder=training,
        num_parallel_workers=args.workers,
    )
    return lambda: loader.create_tuple_iterator(num_epochs=1, output_numpy=True)


PEERS = {"torch DataLoader + timm": torch_timm, "MindCV": mindcv}


def measure(candidate: Candidate) -> tuple[float, float]:
    """(images per second, CPU ms per image of this process and its children) of one pass."""
    before, started, images = cpu_seconds(), time.perf_counter(), 0
    for batch in candidate():
        images += len(batch[0])
    seconds = time.perf_counter() - started
    batch = None
    return images / seconds, 1000 * (cpu_seconds() - before) / images


def cpu_seconds() -> float:
    """Of this process, its children, and those that have ended."""
    children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(os.times()[:4]) + sum(times.user + times.system for times in children)


def scale(root: str, kind: str, args: argparse.Namespace) -> None:
    """Threads against processes, by their number; round by round, so that other work on the machine hits all."""
    makers = {(make.__name__.lower(), count): make(count) for count in args.scaling for make in (Threads, Processes)}
    candidates = {key: ours(root, kind, args.batch_size, workers) for key, workers in makers.items()}
    results = {key: [] for key in candidates}
    for number in range(args.rounds + 1):
        for key, candidate in candidates.items():
            result = measure(candidate)
            if number:  # the first one starts the workers
                results[key].append(result)
    for (name, count), figures in results.items():
        print(
            f"{kind:18} {count} {name:10} {max(rate for rate, _ in figures):7.1f} images/s "
            f"{min(cost for _, cost in figures):6.2f} CPU ms/image",
            flush=True,
        )


def lock_share(root: str, kind: str, args: argparse.Namespace) -> None:
    """One thread at work, sampled by py-spy twice: whenever it runs, and whenever it holds the lock."""
    spy = shutil.which("py-spy")
    if spy is None:
        print(f"{kind:18} lock: skipped: py-spy is not installed (pip install py-spy)")
        return
    code = f"import sys; sys.path[0] = {str(Path(__file__).parent)!r}; import bench_data; "
    code += f"bench_data.endless({root!r}, {kind!r}, {args.batch_size})"
    counts = []
    for options in ([], ["--gil"]):
        samples = Path(root, "samples.txt")
        command = [spy, "record", *options, "-r", "500", "-d", "15", "-f", "raw", "-o", samples]
        subprocess.run([*command, "--", sys.executable, "-c", code], capture_output=True, check=True)
        lines = [line for line in samples.read_text().splitlines() if re.search(r"data/loader\.py", line)]
        counts.append(sum(int(line.rsplit(" ", 1)[1]) for line in lines if "Thread" in line or "thread" in line))
    print(f"{kind:18} a thread holds Python's lock {counts[1] / counts[0]:.1%} of its time", flush=True)


def endless(root: str, kind: str, batch_size: int) -> None:
    candidate = ours(root, kind, batch_size, Threads(1))
    while True:
        measure(candidate)


def compare(root: str, kind: str, args: argparse.Namespace) -> None:
    workers = (Processes if args.processes else Threads)(args.workers)
    candidates = {"MinDeiT": ours(root, kind, args.batch_size, workers)}
    for name, make in ({} if kind.endswith("uint8") else PEERS).items():
        try:
            candidates[name] = make(root, kind, args)
        except ImportError as error:
            print(f"{kind:18} {name:24} skipped: {error}")
    for candidate in candidates.values():
        next(iter(candidate()))  # imports, caches, worker start
    rounds = {name: [] for name in candidates}
    for _ in range(args.rounds):
        for name, candidate in candidates.items():
            rounds[name].append(measure(candidate))
    for name, results in rounds.items():
        speed, cpu = max(rate for rate, _ in results), min(cost for _, cost in results)
        print(
            f"{kind:18} {name:24} {speed:7.1f} images/s {cpu:6.2f} CPU ms/image "
            f"(rounds: {' '.join(f'{rate:.0f}' for rate, _ in results)})",
            flush=True,
        )
    best = {
        name: (max(rate for rate, _ in results), min(cost for _, cost in results)) for name, results in rounds.items()
    }
    speed, cpu = best.pop("MinDeiT")
    for name, (peer_speed, peer_cpu) in best.items():
        print(
            f"{kind:18} MinDeiT is {speed / peer_speed:.2f} times as fast as {name} ({peer_cpu / cpu:.2f} by CPU time)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--processes", action="store_true", help="worker processes instead of threads, for MinDeiT")
    parser.add_argument("--scaling", type=int, nargs="+", metavar="WORKERS", help="measure MinDeiT by these numbers")
    parser.add_argument("--lock", action="store_true", help="measure how long Python's lock is held, by py-spy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["train, 3 repeats", "train", "eval"])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as root:
        make_folder(root, args.images)
        for kind in args.kinds:
            (scale if args.scaling else lock_share if args.lock else compare)(root, kind, args)


if __name__ == "__main__":
    main()
