"""The factor on a half-precision loss that keeps small gradients from vanishing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindeit.errors import UserError

GROWTH_INTERVAL = 2000  # updates without overflow before the scale doubles, as PyTorch's GradScaler counts
_LOWEST, _HIGHEST = 2.0**-14, 2.0**24


@dataclass
class LossScale:
    """``dynamic``: halved when a gradient overflows, doubled after a long time without."""

    value: float = 1.0
    dynamic: bool = False
    good_steps: int = 0

    def restore(self, saved: Mapping[str, Any]) -> None:
        for name, value in saved.items():
            setattr(self, name, value)

    def check(self) -> None:
        if self.value < _LOWEST:
            raise UserError(f"gradients overflow at every loss scale down to {_LOWEST}; use amp_level O0 or a lower lr")


class StepState(nn.Cell):
    """What the next step depends on besides weights and moments: (updates made, updates without overflow since the
    scale changed, loss scale), float32 (3,).

    It is on the device and changes with the step, so that the host can start a step before it knows how the last one
    ended.
    """

    def __init__(self, scale: LossScale) -> None:
        super().__init__(auto_prefix=False)
        self.dynamic = scale.dynamic
        self.values = Parameter(Tensor(_as_values(0, scale)), name="step_state", requires_grad=False)
        self.one_more = Tensor(np.array([1, scale.dynamic, 0], np.float32))
        self.grown, self.limit = (
            Tensor(np.array([1, 0, 2], np.float32)),
            Tensor(np.array([np.inf, np.inf, _HIGHEST], np.float32)),
        )
        self.shrunk = Tensor(np.array([1, 0, 0.5 if scale.dynamic else 1], np.float32))

    def construct(self, finite: Tensor) -> Tensor:
        """Count an update, or one that was skipped because gradients overflowed; returns the new values."""
        after = self.values + self.one_more
        if self.dynamic:
            after = ops.where(after[1] == GROWTH_INTERVAL, ops.minimum(after * self.grown, self.limit), after)
        after = ops.where(finite, after, self.values * self.shrunk)
        ops.assign(self.values, after)
        return after

    def set(self, updates: int, scale: LossScale) -> None:
        self.values.set_data(Tensor(_as_values(updates, scale)))


def _as_values(updates: int, scale: LossScale) -> np.ndarray:
    return np.array([updates, scale.good_steps, scale.value], np.float32)
