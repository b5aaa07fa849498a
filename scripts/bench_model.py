"""Forward speed and memory of a DeiT beside PyTorch's and MindCV's on CPU, measured in one run.

    python scripts/bench_model.py                                    # DeiT-tiny, batch 32, float32
    python scripts/bench_model.py --model deit_small_patch16_224 --batch_size 8 --rounds 10
    python scripts/bench_model.py --avx2 --only MinDeiT "PyTorch eager"

MinDeiT runs with its fused operators, with MindSpore's own, and with products in bfloat16 where the CPU has them.
PyTorch's model is timm's, with its fused attention, where timm is installed, else the reference that conversions are
verified with: eager, through torch.compile, and eager under bf16 autocast. Each candidate is a process of its own.
They take turns, round by round, so that a machine's other work meets them all; medians count. A peer that is not
installed is left out with a word.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import Callable

import bench_turns
import numpy as np
from bench_turns import BF16, OWN, STOCK, Turn, at_level, timed

from mindeit.errors import run_script
from mindeit.models.registry import build, spec
from mindeit.models.timm_models import timm_model


def ours(name: str, images: np.ndarray, *, amp_level: str = "O0") -> Callable[[], object]:
    from mindeit.runtime import device

    device.setup("CPU")
    return _graph(at_level(build(name), amp_level), images)


def mindcv(name: str, images: np.ndarray) -> Callable[[], object]:
    return _graph(mindcv_model(name), images)


def mindcv_model(name: str, num_classes: int = 1000):
    """MindCV has no DeiT; its plain ViT of the same shape computes the same."""
    from mindcv.models.vit import VisionTransformer

    from mindeit.runtime import device

    device.setup("CPU")
    row = spec(name)
    shape = {key: row.variant[key] for key in ("patch_size", "embed_dim", "depth", "num_heads")}
    return VisionTransformer(image_size=row.image_size, num_classes=num_classes, **shape)


def _graph(model, images: np.ndarray) -> Callable[[], object]:
    from mindspore import Tensor

    batch = Tensor(images)
    model.set_train(False)
    return lambda: model(batch).asnumpy()


def torch_model(name: str, num_classes: int = 1000):
    """timm's, else the reference."""
    row = spec(name)
    form = timm_model(row)
    try:
        if form is None:
            raise ImportError("timm has no such model")
        from timm import create_model

        size = {} if row.family in ("resmlp", "regnet") else {"img_size": row.image_size}
        return create_model(form.architecture, num_classes=num_classes, **size, **form.model_args)
    except ImportError:
        from mindeit.torch_reference.build import build_reference

        return build_reference(name, num_classes=num_classes, image_size=row.image_size)


def pytorch(name: str, images: np.ndarray, *, compiled: bool = False, bf16: bool = False) -> Callable[[], object]:
    import torch

    model, batch = torch_model(name).eval(), torch.from_numpy(images)
    if compiled:
        model = torch.compile(model)

    def step() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(batch)

    return step


CANDIDATES = {
    OWN: ours,
    STOCK: ours,
    BF16: functools.partial(ours, amp_level="bf16"),
    "PyTorch eager": pytorch,
    "torch.compile": functools.partial(pytorch, compiled=True),
    "PyTorch bf16": functools.partial(pytorch, bf16=True),
    "MindCV ViT": mindcv,
}


def prepared(options: argparse.Namespace) -> Turn:
    size = spec(options.model).image_size
    images = np.random.default_rng(0).standard_normal((options.batch_size, 3, size, size)).astype(np.float32)
    step = CANDIDATES[options.worker](options.model, images)
    step()
    return lambda: timed(step)


@run_script
def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bench_turns.add_options(parser, CANDIDATES, rounds=10)
    options = parser.parse_args(argv)
    if options.worker:
        return bench_turns.serve(lambda: prepared(options))
    arguments = ["--model", options.model, "--batch_size", str(options.batch_size)]
    bench_turns.report(bench_turns.compare(__file__, CANDIDATES, arguments, options), options.batch_size)
    return None


if __name__ == "__main__":
    main()
