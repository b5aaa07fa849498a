"""What the optimizers share: groups of equal decay and learning rate, and named state beside the weights."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindeit.optim.groups import Trained


class Optimizer(nn.Cell):
    """``(grads, lr, step) -> True``; weights and state change in place.

    ``grads`` follow ``trained``; ``lr`` and ``step`` are float32 scalars, and the first step is 1. Nothing is
    remembered outside of ``state``, so a copy of it and of the weights continues exactly.
    """

    options: tuple[str, ...] = ()  # what ``create`` hands over
    beta_count = 2

    def __init__(self, trained: Sequence[Trained], name: str, slots: Sequence[str]) -> None:
        super().__init__(auto_prefix=False)  # the trained parameters keep their names
        self.parameters = ParameterTuple([one.parameter for one in trained])
        self.groups = _groups(trained)
        self.slots = tuple(slots)
        for slot in slots:
            setattr(self, slot, ParameterTuple([_zeros(f"{name}.{slot}", one.parameter) for one in trained]))

    @property
    def state(self) -> tuple[Parameter, ...]:
        """What a checkpoint keeps, named ``<optimizer>.<slot>.<parameter>``."""
        return tuple(parameter for slot in self.slots for parameter in getattr(self, slot))


def _groups(trained: Sequence[Trained]) -> tuple[tuple[float, float, tuple[int, ...]], ...]:
    """(decay, lr_scale, places in ``trained``): scalars are computed once a group, not once a parameter."""
    members: dict[tuple[float, float], list[int]] = {}
    for place, one in enumerate(trained):
        members.setdefault((float(one.decay), float(one.lr_scale)), []).append(place)
    return tuple((decay, lr_scale, tuple(places)) for (decay, lr_scale), places in members.items())


def _zeros(prefix: str, parameter: Parameter) -> Parameter:
    return Parameter(Tensor(np.zeros(parameter.shape, np.float32)), name=f"{prefix}.{parameter.name}",
                     requires_grad=False)


def single(beta: float) -> float:
    """``beta`` as the kernels round it; corrected for any other number, the first moments would be off by 1e-5."""
    return float(np.float32(beta))


def bias_correction(beta: float, step: Tensor) -> Tensor:
    """``1 - beta ** step`` to the last digits: taken as a difference, it loses four of seven in the first steps."""
    half = step * (-0.5 * math.log(beta))
    tanh = ops.tanh(half)  # 1 - exp(-2x) = 2 tanh(x) / (1 + tanh(x)); on CPU tanh is 1 too early
    return ops.where(half < 0.5, 2 * tanh / (1 + tanh), 1 - ops.exp(-2 * half))
