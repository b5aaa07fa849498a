"""Images per second and CPU ms per image of the data pipeline, beside PyTorch's and MindCV's where they are installed.

    python scripts/bench_data.py                       # training with and without repeated augmentation, evaluation
    python scripts/bench_data.py --workers 2 --images 1024 --rounds 3

The folder it reads is made of pictures that ship with scikit-learn, cut to 500x375 JPEGs. All candidates read the same
files with the same number of workers, one after another, round by round; the best round of each counts. On a machine
with other work to do the CPU time is the steadier of the two figures.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from mindeit.data import EvalTransform, TrainTransform, evaluation_batches, open_source, training_batches

SIZE, MEAN, STD = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY = "rand-m9-mstd0.5-inc1"
Candidate = Callable[[], Iterable]  # one pass over batches; its items begin with the images


def make_folder(root: str, count: int) -> None:
    """``count`` JPEGs of 500x375 in ten classes, in ``train/`` and (the same files) ``val/``."""
    from sklearn.datasets import load_sample_images
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = os.path.join(root, "train", f"class{number % 10}")
        os.makedirs(folder, exist_ok=True)
        picture = pictures[number % len(pictures)]
        left, top = int(rng.integers(picture.width - 500)), int(rng.integers(picture.height - 375))
        picture.crop((left, top, left + 500, top + 375)).save(os.path.join(folder, f"{number}.jpg"), quality=90)
    os.symlink(os.path.join(root, "train"), os.path.join(root, "val"))


def ours(root: str, kind: str, args: argparse.Namespace) -> Candidate:
    source = open_source("image_folder", root, "val" if kind == "eval" else "train", cache_dir=root)
    options = {"workers": args.workers, "processes": args.processes}
    if kind == "eval":
        transform = EvalTransform(SIZE, 0.875)
        return lambda: evaluation_batches(source, transform, args.batch_size, **options)
    transform = TrainTransform(SIZE, auto_augment=POLICY)
    repeats = 3 if kind == "train, 3 repeats" else 1
    return lambda: training_batches(source, transform, args.batch_size, epoch=0, seed=0, repeats=repeats, **options)


def torch_timm(root: str, kind: str, args: argparse.Namespace) -> Candidate:
    """torch DataLoader over torchvision's ImageFolder with timm's transforms; repeats as DeiT's sampler orders them."""
    import torch
    from timm.data import auto_augment, create_transform
    from torchvision import datasets, transforms
    torch.set_num_threads(1)
    posterize = auto_augment.NAME_TO_OP["PosterizeIncreasing"]  # raises at 0 bits with a current Pillow
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **look: posterize(image, max(bits, 1), **look)
    if kind == "eval":
        transform = transforms.Compose([transforms.Resize(256, interpolation=3), transforms.CenterCrop(SIZE),
                                        transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    else:
        transform = create_transform(SIZE, is_training=True, color_jitter=0.3, auto_augment=POLICY,
                                     interpolation="bicubic", re_prob=0.25, re_mode="pixel", re_count=1)
    data = datasets.ImageFolder(os.path.join(root, "train"), transform)
    repeats = 3 if kind == "train, 3 repeats" else 1
    kept = len(data) // 256 * 256 if repeats > 1 else len(data)
    order = range(len(data)) if kind == "eval" else np.random.default_rng(0).permutation(len(data))
    indices = [int(i) for i in order for _ in range(repeats)][:kept]
    return lambda: torch.utils.data.DataLoader(data, args.batch_size, sampler=indices, num_workers=args.workers,
                                               drop_last=kind != "eval")


def mindcv(root: str, kind: str, args: argparse.Namespace) -> Candidate:
    """MindCV's own pipeline and its own RandAugment (which is not timm's)."""
    from mindcv.data import create_dataset, create_loader, create_transforms
    if kind == "train, 3 repeats":
        raise ImportError("its repeated augmentation needs several ranks")
    training = kind != "eval"
    options = {"auto_augment": "randaug-m9-mstd0.5-inc1", "re_prob": 0.25} if training else {"crop_pct": 0.875}
    transform = create_transforms(dataset_name="imagenet", image_resize=SIZE, is_training=training,
                                  interpolation="bicubic", **options)
    data = create_dataset(name="imagenet", root=root, split="train" if training else "val", shuffle=training,
                          num_parallel_workers=args.workers)
    loader = create_loader(data, args.batch_size, is_training=training, transform=transform, num_classes=10,
                           drop_remainder=training, num_parallel_workers=args.workers)
    return lambda: loader.create_tuple_iterator(num_epochs=1, output_numpy=True)


PEERS = {"torch DataLoader + timm": torch_timm, "MindCV": mindcv}


def measure(candidate: Candidate) -> tuple[float, float]:
    """(images per second, CPU ms per image of this process and its children) of one pass."""
    with count_cpu() as cpu:
        started, images = time.perf_counter(), 0
        for batch in candidate():
            images += len(batch[0])
        seconds = time.perf_counter() - started
        batch = None
    return images / seconds, 1000 * cpu[0] / images


@contextlib.contextmanager
def count_cpu() -> Iterator[list[float]]:
    spent = [0.0]
    before = os.times()
    yield spent
    after = os.times()
    spent[0] = sum(after[:4]) - sum(before[:4])


def compare(root: str, kind: str, args: argparse.Namespace) -> None:
    candidates = {"MinDeiT": ours(root, kind, args)}
    for name, make in PEERS.items():
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
        print(f"{kind:18} {name:24} {speed:7.1f} images/s {cpu:6.2f} CPU ms/image "
              f"(rounds: {' '.join(f'{rate:.0f}' for rate, _ in results)})", flush=True)
    best = {name: (max(rate for rate, _ in results), min(cost for _, cost in results))
            for name, results in rounds.items()}
    speed, cpu = best.pop("MinDeiT")
    for name, (peer_speed, peer_cpu) in best.items():
        print(f"{kind:18} MinDeiT is {speed / peer_speed:.2f} times as fast as {name} "
              f"({peer_cpu / cpu:.2f} by CPU time)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--processes", action="store_true", help="worker processes instead of threads, for MinDeiT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["train, 3 repeats", "train", "eval"])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as root:
        make_folder(root, args.images)
        for kind in args.kinds:
            compare(root, kind, args)


if __name__ == "__main__":
    main()
