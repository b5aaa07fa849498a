"""Mixed precision: the type in which each part of a model computes. Parameters stay float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import mindspore as ms
from mindspore import Parameter, nn

from mindeit.runtime import device

HALVES = {"O2": ms.float16, "O3": ms.float16, "bf16": ms.bfloat16}
NORMS = (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)


def apply(model: nn.Cell, amp_level: str) -> nn.Cell:
    """O0: float32. O2 and bf16: half precision except for norms and cells that say ``float32`` (and softmax, see
    kernels). O3: these as well. CPU has no other operators for bfloat16 than products."""
    if amp_level == "O0":
        return model
    if _in_products_alone(amp_level):
        multiply_in_bfloat16([model])
        return model
    model.to_float(HALVES[amp_level])
    if amp_level != "O3":
        for cell in model.cells():
            _keep_float32(cell)
    return model


def _in_products_alone(amp_level: str) -> bool:
    return amp_level == "bf16" and device.target() == "CPU"


def multiply_in_bfloat16(cells: Iterable[nn.Cell]) -> None:
    """On CPU, by those among them, or inside of them, that know how. Parameters, sums and all else stay float32."""
    for cell in cells:
        if hasattr(cell, "multiply_in_bfloat16"):
            cell.multiply_in_bfloat16()
        else:
            multiply_in_bfloat16(cell.cells())


def overflows(amp_level: str) -> bool:
    """Whether gradients do, so that the loss needs a scale: in float16 alone."""
    return HALVES.get(amp_level) == ms.float16


def _keep_float32(cell: nn.Cell) -> None:
    for part in (cell, *(child for _, child in cell.cells_and_names())):
        if isinstance(part, NORMS) or getattr(part, "float32", False):
            part.to_float(ms.float32)


def storage(model: nn.Cell, amp_level: str) -> Callable[[Parameter], ms.Type]:
    """In which type training keeps a parameter of ``model``: weights and biases that only ever meet halves become
    halves, so that no step casts them; what is computed in float32 stays. To be asked after `apply`."""
    halves: set[int] = set()
    if amp_level != "O0" and not _in_products_alone(amp_level):
        for _, cell in model.cells_and_names():
            if not isinstance(cell, NORMS) and not getattr(cell, "float32", False):
                own = cell.parameters_dict(recurse=False).values()
                halves |= {id(parameter) for parameter in own if parameter.name.endswith((".weight", ".bias"))}
    return lambda parameter: HALVES[amp_level] if id(parameter) in halves else ms.float32


def store_halves(model: nn.Cell) -> None:
    """Keep parameters in half precision too, norms' apart: for a model that computes at O2 and learns no more."""
    norms = [cell for _, cell in model.cells_and_names() if isinstance(cell, NORMS)]
    kept = {id(parameter) for norm in norms for parameter in norm.get_parameters()}
    for parameter in model.get_parameters():
        if id(parameter) not in kept:
            parameter.set_dtype(ms.float16)
