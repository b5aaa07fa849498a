"""Checks a conversion: PyTorch and MindSpore on the same images; compares logits and blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from mindeit.comparison import gap
from mindeit.layers import weight_init
from mindeit.models.registry import build
from mindeit.runtime import device
from mindeit.weights.checkpoint import ModelCard, State, load_strict
from mindeit.weights.load import to_official
from mindeit.weights.torch_files import import_torch

LIMIT = 1e-4  # of the logits' standard deviation; float32 itself leaves about 2e-6


@dataclass(frozen=True)
class Report:
    """Gaps are in units of the standard deviation of PyTorch's values."""

    model: str
    tensors: int
    bytes: int
    max_gap: float
    mean_gap: float
    departs: str | None  # first block that is further off than the limit
    versions: str

    @property
    def ok(self) -> bool:
        return self.max_gap <= LIMIT  # False for NaN

    def __str__(self) -> str:
        rows = (
            ("tensors mapped", f"{self.tensors}, {self.bytes / 1e6:.1f} MB"),
            ("logits, largest gap", f"{self.max_gap:.1e} of their spread (limit {LIMIT:.0e})"),
            ("logits, mean gap", f"{self.mean_gap:.1e} of their spread"),
            ("first block that departs", self.departs or "none"),
            ("verdict", "equal" if self.ok else "DIFFERENT"),
        )
        head = f"parity of {self.model}: {self.versions}, 2 images"
        return "\n".join([head, *(f"  {label:<25} {value}" for label, value in rows)])


def verify(state: State, card: ModelCard) -> Report:
    """Run both frameworks on ``state`` (this project's names): logits as one compiled graph, blocks one by one."""
    images = np.random.default_rng(0).standard_normal((2, 3, card.image_size, card.image_size)).astype(np.float32)
    want, want_parts = _run_torch(to_official(state, card), card, images)
    got, got_parts = _run_mindspore(state, card, images, list(want_parts))
    gaps = gap(got, want)
    return Report(
        model=card.model,
        tensors=len(state),
        bytes=sum(array.nbytes for array in state.values()),
        max_gap=float(gaps.max()),
        mean_gap=float(gaps.mean()),
        departs=_first_departure(got_parts, want_parts),
        versions=_versions(),
    )


def _first_departure(got: State, want: State) -> str | None:
    """In the order PyTorch computes; NaN departs."""
    for name, values in want.items():
        if name in got and got[name].shape == values.shape:
            largest = float(gap(got[name], values).max())
            if not largest <= LIMIT:
                return f"{name} ({largest:.1e} of its spread)"
    return None


def _run_torch(official: State, card: ModelCard, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    torch = import_torch()
    from mindeit.torch_reference.build import build_reference  # needs torch

    reference, parts = build_reference(card.model, num_classes=card.num_classes, image_size=card.image_size), {}
    # an old file without BatchNorm's counters is whole as well: they do not enter the result
    counters = {name: np.zeros((), np.int64) for name in reference.state_dict() if name.endswith("num_batches_tracked")}
    weights = {name: torch.from_numpy(np.array(array)) for name, array in {**counters, **official}.items()}
    reference.load_state_dict(weights, strict=True)
    for name, module in reference.named_modules():
        if _is_part(name):
            module.register_forward_hook(lambda _, __, output, name=name: parts.update({name: output.numpy()}))
    with torch.inference_mode():
        return reference(torch.from_numpy(images)).numpy(), parts


def _is_part(name: str) -> bool:
    """``patch_embed``, ``blocks.3``, ``s1.b2``, ``norm``: at most two levels deep."""
    return bool(name) and name.count(".") <= 1


def _run_mindspore(
    state: State, card: ModelCard, images: np.ndarray, parts: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits from the compiled graph, parts operator by operator (a graph keeps its inner values to itself)."""
    with weight_init.left_out():
        model = build(card.model, num_classes=card.num_classes, image_size=card.image_size)
    seen: dict[str, np.ndarray] = {}
    load_strict(model, state, "the converted weights")
    model.set_train(False)
    logits = ms.jit(model)(ms.Tensor(images)).asnumpy()
    for name, cell in model.cells_and_names():
        if name in parts:
            cell.register_forward_hook(_keep(seen, name))
    with device.operator_by_operator():
        model(ms.Tensor(images))
    return logits, seen


def _keep(seen: dict[str, np.ndarray], name: str) -> Callable[..., None]:
    def hook(cell: nn.Cell, inputs: Any, output: Any) -> None:
        if hasattr(output, "asnumpy"):
            seen[name] = output.asnumpy()

    return hook


def _versions() -> str:
    return f"PyTorch {import_torch().__version__}, MindSpore {ms.__version__} on {device.target()}"
