"""Forward speed of a DeiT, as a ratio to the same network in PyTorch (eager) and in MindCV, measured in one run.

    python scripts/bench_model.py                                    # DeiT-tiny, batch 32, float32, CPU
    python scripts/bench_model.py --model deit_small_patch16_224 --batch_size 8 --rounds 10

The candidates take turns, round by round, so that a machine's other work meets them all; the best round of each counts.
A peer that is not installed is left out with a word.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from mindeit.errors import run_script
from mindeit.models.registry import build, spec

Step = Callable[[], object]


def ours(name: str, images: np.ndarray) -> Step:
    return _compiled(build(name), images)


def mindcv(name: str, images: np.ndarray) -> Step:
    """MindCV has no DeiT; its plain ViT of the same shape computes the same."""
    from mindcv.models.vit import VisionTransformer

    shape = {key: spec(name).variant[key] for key in ("embed_dim", "depth", "num_heads")}
    return _compiled(VisionTransformer(image_size=images.shape[-1], **shape), images)


def _compiled(model, images: np.ndarray) -> Step:
    from mindspore import Tensor

    batch = Tensor(images)
    model.set_train(False)
    return lambda: model(batch).asnumpy()


def pytorch(name: str, images: np.ndarray) -> Step:
    import torch

    from mindeit.torch_reference.build import build_reference

    model, batch = build_reference(name, num_classes=1000, image_size=images.shape[-1]), torch.from_numpy(images)

    def step() -> object:
        with torch.inference_mode():
            return model(batch)

    return step


CANDIDATES = {"MinDeiT": ours, "PyTorch eager": pytorch, "MindCV ViT": mindcv}


def available(name: str, images: np.ndarray) -> dict[str, Step]:
    steps = {}
    for title, make in CANDIDATES.items():
        try:
            steps[title] = make(name, images)
            start = time.perf_counter()
            steps[title]()
            print(f"{title:14} first call {time.perf_counter() - start:6.1f} s (compiling included)", flush=True)
        except ImportError as error:
            print(f"{title:14} left out: {error}")
    return steps


def best_of(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Seconds of each candidate's best round."""
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for title, step in steps.items():
            start = time.perf_counter()
            step()
            best[title] = min(best[title], time.perf_counter() - start)
    return best


@run_script
def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device_target", default="CPU", choices=("CPU", "GPU", "Ascend"))
    options = parser.parse_args(argv)
    from mindeit.runtime import device

    size = spec(options.model).image_size
    device.setup(options.device_target)
    images = np.random.default_rng(0).standard_normal((options.batch_size, 3, size, size)).astype(np.float32)
    seconds = best_of(available(options.model, images), options.rounds)
    own = seconds["MinDeiT"]
    for title, value in seconds.items():
        rate, ratio = options.batch_size / value, value / own
        print(f"{title:14} {1000 * value:7.0f} ms a batch, {rate:7.1f} images/s, MinDeiT is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
