"""What tests of models and kernels share: models cut down to a few blocks, their reference weights, and gradients."""

from __future__ import annotations

import hashlib
import importlib
import json
import re

import numpy as np
from mindspore import nn, ops
from reference import GOLDEN, reference_tensor

from mindeit.layers.weight_init import left_out
from mindeit.models.registry import build, spec
from mindeit.weights.checkpoint import load_strict
from mindeit.weights.names import official_names

FIGURES = json.loads((GOLDEN / "zoo.json").read_text())
NAMES = tuple(FIGURES["names"])  # all of the official code's besides DeiT's own, and one with the hMLP stem


def shallow(name: str, depth: int = 1, *, num_classes: int = 1000, image_size: int | None = None, **others) -> nn.Cell:
    """The model of that name with fewer blocks: all of them are alike."""
    row = spec(name)
    family = importlib.import_module(f"mindeit.models.{row.family}")
    return family.build(
        **{**row.variant, "drop_path_rate": 0.0, "drop_rate": 0.0, **others, "depth": depth},
        num_classes=num_classes,
        image_size=image_size or row.image_size,
    )


class GradientOf(nn.Cell):
    """(inputs of ``kernel``, the gradient of its output) -> gradients of the inputs."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel, self.gradient = kernel, ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, *inputs_and_sensitivity):
        return self.gradient(self.kernel)(*inputs_and_sensitivity)


class ValueAndGradient(nn.Cell):
    """The same -> the output of ``kernel``, and its gradients. One graph, where that is the mode."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel, self.gradient = kernel, ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, *inputs_and_sensitivity):
        return self.kernel(*inputs_and_sensitivity[:-1]), self.gradient(self.kernel)(*inputs_and_sensitivity)


def undrawn(name: str, **options: int) -> nn.Cell:
    """A model whose values are not the fact: drawing them takes longest."""
    with left_out():
        return build(name, **options)


def fill(model: nn.Cell) -> nn.Cell:
    """Reference weights, in evaluation mode."""
    names = official_names(model)
    state = {p.name: reference_tensor(names[p.name], tuple(p.shape)) for p in model.get_parameters()}
    load_strict(model, state, "reference")
    return model.set_train(False)


def listing(model: nn.Cell, depth: int) -> list[tuple[str, list[int]]]:
    """(official name, shape) in the official order, as of ``depth`` blocks like the one that ``model`` has."""
    names = official_names(model)
    shapes = {p.name: list(p.shape) for p in model.get_parameters()}
    rows = [(official, shapes[own]) for own, official in names.items()]
    block = [row for row in rows if row[0].startswith("blocks.0.")]
    start = rows.index(block[0])
    blocks = [(re.sub(r"^blocks\.0", f"blocks.{n}", key), shape) for n in range(depth) for key, shape in block]
    return [*rows[:start], *blocks, *rows[start + len(block) :]]


def digest(rows: list[tuple[str, list[int]]]) -> str:
    return hashlib.sha256("\n".join(f"{name} {shape}" for name, shape in rows).encode()).hexdigest()


def golden(key: str) -> np.ndarray:
    return np.load(GOLDEN / "zoo.npz")[key]
