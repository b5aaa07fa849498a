"""What `bench_train.py` compares: of each candidate a step, and the batches that go with it."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import numpy as np
from bench_turns import BF16, OWN, STOCK, at_level

from mindeit.models.registry import spec

CLASSES = 1000
Batch = tuple[np.ndarray, np.ndarray]  # images, labels
Step = Callable[[np.ndarray, np.ndarray], object]


def ours(options: argparse.Namespace, *, amp_level: str = "O0") -> tuple[Step, Iterator[Batch]]:
    from mindeit import optim
    from mindeit.models.registry import build
    from mindeit.objectives import Supervised, losses
    from mindeit.optim.flat import FlatParameters
    from mindeit.optim.groups import trained_parameters
    from mindeit.runtime import cluster, device
    from mindeit.training.loss_scale import LossScale, StepState
    from mindeit.training.step import Clip, Gradients, Stepper, Update

    device.setup("CPU")
    here = cluster.start(options.ranks > 1, "CPU")
    model = at_level(build(options.model, num_classes=CLASSES), amp_level)
    flat, state = FlatParameters(trained_parameters(model, 0.05)), StepState(LossScale())
    objective = Supervised(model, losses.cross_entropy).set_train(True)
    update = Update(flat, optim.create("adamw", flat), None, state, clip=Clip(), ranks=here.ranks, check_finite=False)
    stepper = Stepper(Gradients(objective, flat, None, state), update)
    one_hot, draws = np.eye(CLASSES, dtype=np.float32), np.zeros((1, options.batch_size), np.float32)

    def step(batch: np.ndarray, labels: np.ndarray) -> object:
        return stepper([(batch, one_hot[labels], draws)], 1e-3).read()

    def epoch(number: int) -> Iterable[Batch]:
        from mindeit.data import Threads, training_batches

        return training_batches(
            *images(options),
            options.batch_size,
            epoch=number,
            seed=0,
            rank=here.rank,
            ranks=here.ranks,
            workers=Threads(options.workers),
        )

    return step, batches(options, epoch)


def pytorch(options: argparse.Namespace, *, compiled: bool = False, bf16: bool = False) -> tuple[Step, Iterator[Batch]]:
    import torch
    from bench_model import torch_model

    model = torch_model(options.model, CLASSES).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    forward = torch.compile(model) if compiled else model

    def step(images: np.ndarray, labels: np.ndarray) -> object:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = forward(torch.as_tensor(images))
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.as_tensor(labels).long())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, batches(options, lambda number: torch_loader(options))


def torch_loader(options: argparse.Namespace) -> Iterable[Batch]:
    """A DataLoader with timm's transforms; without timm, with ours, which do the same to each image."""
    import torch
    from bench_data import torch_timm

    threads = torch.get_num_threads()
    try:
        loader = torch_timm(options.folder, "train", options)()
        torch.set_num_threads(threads)
        return loader
    except ImportError:
        return torch.utils.data.DataLoader(
            Images(*images(options)), options.batch_size, shuffle=True, num_workers=options.workers, drop_last=True
        )


def images(options: argparse.Namespace) -> tuple:
    """The folder, and what training does to an image."""
    from bench_data import POLICY

    from mindeit.data import TrainTransform, open_source

    source = open_source("image_folder", options.folder, "train", cache_dir=options.folder)
    return source, TrainTransform(spec(options.model).image_size, auto_augment=POLICY)


class Images:
    """What a DataLoader takes: (normalised image, label) by number."""

    def __init__(self, source: object, transform: Callable) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng([index, time.time_ns()])
        return self.transform(self.source.read(index), rng), int(self.source.labels[index])


def mindcv(options: argparse.Namespace) -> tuple[Step, Iterator[Batch]]:
    """With the optimizer of MindCV's recipes."""
    from bench_model import mindcv_model
    from mindspore import Tensor, nn

    model = mindcv_model(options.model, CLASSES)
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    optimizer = nn.AdamWeightDecay(model.trainable_params(), 1e-3, weight_decay=0.05)
    cell = nn.TrainOneStepCell(nn.WithLossCell(model, loss), optimizer).set_train(True)

    def step(images: np.ndarray, labels: np.ndarray) -> object:
        return cell(Tensor(images), Tensor(labels.astype(np.int32))).asnumpy()

    return step, batches(options, lambda number: mindcv_loader(options))


def mindcv_loader(options: argparse.Namespace) -> Iterable[Batch]:
    from bench_data import mindcv as loader

    return loader(options.folder, "train", options)()


def batches(options: argparse.Namespace, epoch: Callable[[int], Iterable[Batch]]) -> Iterator[Batch]:
    """Epoch after epoch from the folder, or without one the same random batch for ever."""
    if options.folder:
        for number in count():
            for images, labels in epoch(number):
                yield images, labels
    rng, size = np.random.default_rng(0), spec(options.model).image_size
    images = rng.standard_normal((options.batch_size, 3, size, size)).astype(np.float32)
    labels = np.arange(options.batch_size) % CLASSES
    while True:
        yield images, labels


CANDIDATES = {
    OWN: ours,
    STOCK: ours,
    BF16: functools.partial(ours, amp_level="bf16"),
    "PyTorch eager": pytorch,
    "torch.compile": functools.partial(pytorch, compiled=True),
    "PyTorch bf16": functools.partial(pytorch, bf16=True),
    "MindCV ViT": mindcv,
}
