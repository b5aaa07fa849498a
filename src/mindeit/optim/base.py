"""The base of all optimizers: the buffers they update, and their named state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from mindeit.optim.flat import FlatParameters


class Optimizer(nn.Cell):
    """``(grads, lr, step, moving) -> True``; weights and state change in place.

    ``grads`` are finite, one per buffer of ``flat``; ``lr`` and ``step`` are float32 scalars, and the first step is 1.
    ``moving`` False leaves weights and state as they are, without control flow: on a GPU a branch would send whatever
    it may change through the host. All state is in buffers, so that a copy of them continues exactly.
    """

    options: tuple[str, ...] = ()  # what ``create`` hands over
    beta_count = 2

    def __init__(self, flat: FlatParameters, name: str, slots: Sequence[str]) -> None:
        super().__init__(auto_prefix=False)  # the trained parameters keep their names
        self.name, self.slots = name, tuple(slots)
        self.weights = flat.weights
        self.decays = tuple(group.decay for group in flat.groups)
        self.lr_scales = tuple(group.lr_scale for group in flat.groups)
        for slot in slots:
            setattr(self, slot, flat.zeros(f"{name}.{slot}"))

    def construct(self, grads: tuple[Tensor, ...], lr: Tensor, step: Tensor, moving: Tensor) -> bool:
        lr = ops.select(moving, lr, Tensor(0.0, ms.float32))
        rates: tuple[Tensor, ...] = ()
        for scale in self.lr_scales:
            rates += (lr if scale == 1 else lr * scale,)
        self.update(grads, rates, step, moving)
        return True

    def update(self, grads: tuple[Tensor, ...], rates: tuple[Tensor, ...], step: Tensor, moving: Tensor) -> None:
        """``rates``: the learning rate of each buffer, 0 if nothing is to move; `kept` then keeps the state."""
        raise NotImplementedError

    @property
    def state(self) -> dict[str, ParameterTuple]:
        """The state for a checkpoint, by ``<optimizer>.<slot>``."""
        return {f"{self.name}.{slot}": getattr(self, slot) for slot in self.slots}


def kept(moving: Tensor, share: float) -> Tensor:
    """The factor on an average in a step: ``share``, or 1 if nothing is to move."""
    return ops.select(moving, Tensor(share, ms.float32), Tensor(1.0, ms.float32))


def added(moving: Tensor, share: float) -> Tensor:
    """The factor on a new value that is added to an average: ``share``, or 0 if nothing is to move."""
    return ops.select(moving, Tensor(share, ms.float32), Tensor(0.0, ms.float32))


def single(beta: float) -> float:
    """``beta`` as the kernels round it; corrected for any other number, the first moments would be off by 1e-5."""
    return float(np.float32(beta))


def bias_correction(beta: float, step: Tensor) -> Tensor:
    """``1 - beta ** step`` to the last digits: taken as a difference, it loses four of seven in the first steps."""
    half = step * (-0.5 * math.log(beta))
    tanh = ops.tanh(half)  # 1 - exp(-2x) = 2 tanh(x) / (1 + tanh(x)); on CPU tanh is 1 too early
    return ops.where(half < 0.5, 2 * tanh / (1 + tanh), 1 - ops.exp(-2 * half))
