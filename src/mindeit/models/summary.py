"""Parameters and multiply-adds of a model, module by module, counted while one image runs through it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from mindspore import Tensor, nn

from mindeit.layers.counted import Counted
from mindeit.runtime import device

# Of MindSpore's own layers; batch norms fold into their convolutions.
_MULTIPLY_ADDS = {
    Counted: lambda cell, inputs, out: cell.multiply_adds(inputs, out),
    nn.Dense: lambda cell, inputs, out: prod(out) * cell.in_channels,
    nn.Conv2d: lambda cell, inputs, out: prod(out) * prod(cell.weight.shape[1:]),
}


@dataclass(frozen=True)
class Row:
    module: str
    parameters: int
    gflops: float


@dataclass(frozen=True)
class Summary:
    image_size: int
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def gflops(self) -> float:
        return sum(row.gflops for row in self.rows)

    def __str__(self) -> str:
        total = Row("total", self.parameters, self.gflops)
        width = max(len(row.module) for row in self.rows)
        lines = [f"{'module':<{width}}  {'parameters':>12}  {'GFLOPs':>8}  ({self.image_size}x{self.image_size})"]
        lines += [f"{row.module:<{width}}  {row.parameters:>12,}  {row.gflops:>8.3f}" for row in (*self.rows, total)]
        return "\n".join(lines)


def summary(model: nn.Cell) -> Summary:
    """Count ``model`` at its own resolution. Buffers such as BatchNorm's running statistics are not parameters."""
    counted = _count_multiply_adds(model)
    modules: dict[str, list[float]] = {}
    for parameter in model.get_parameters():
        row = modules.setdefault(_module(parameter.name), [0, 0])
        if not parameter.name.endswith(("moving_mean", "moving_variance")):
            row[0] += parameter.size
    for name, multiply_adds in counted.items():
        modules[_module(name)][1] += multiply_adds
    rows = (Row(name, int(parameters), macs / 1e9) for name, (parameters, macs) in modules.items())
    return Summary(model.image_size, tuple(rows))


def _module(name: str) -> str:
    """``blocks.3.attn.qkv`` -> ``blocks.3``, ``s1.b2.conv1`` -> ``s1.b2``; everything else by its first part."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    numbered = first != "head" and (second.isdigit() or second[1:].isdigit())
    return f"{first}.{second}" if numbered else first


def _count_multiply_adds(model: nn.Cell) -> dict[str, int]:
    counted: dict[str, int] = {}
    handles = []
    for name, cell in model.cells_and_names():
        count = next((rule for kind, rule in _MULTIPLY_ADDS.items() if isinstance(cell, kind)), None)
        if count:

            def hook(cell, inputs, output, name=name, count=count):
                counted[name] = count(cell, inputs, output.shape)

            handles.append(cell.register_forward_hook(hook))
    training = model.training
    model.set_train(False)
    try:
        with device.operator_by_operator():
            model(Tensor(np.zeros((1, model.in_channels, model.image_size, model.image_size), np.float32)))
    finally:
        model.set_train(training)
        for handle in handles:
            handle.remove()
    return counted
