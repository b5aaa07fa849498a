"""The factor on a half-precision loss that keeps small gradients from vanishing."""
from __future__ import annotations

from dataclasses import dataclass

from mindeit.errors import UserError

GROWTH_INTERVAL = 2000  # updates without overflow before the scale doubles, as PyTorch's GradScaler counts
_LOWEST = 2.0**-14


@dataclass
class LossScale:
    """``dynamic``: halved when a gradient overflows, doubled after a long time without."""

    value: float = 1.0
    dynamic: bool = False
    good_steps: int = 0

    def after(self, finite: bool) -> None:
        """Take note of an update, or of one that was left out because gradients overflowed."""
        if not self.dynamic:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.good_steps == GROWTH_INTERVAL:
            self.value, self.good_steps = min(self.value * 2, 2.0**24), 0
        if self.value < _LOWEST:
            raise UserError(f"gradients overflow at every loss scale down to {_LOWEST}; use amp_level O0 or a lower lr")
