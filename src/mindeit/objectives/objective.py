"""What training minimises: cells ``(images, targets) -> loss``. The training step does not know which one it runs.

images: normalised, float32 (B, 3, S, S); targets: soft, float32 (B, C). Losses are computed in float32 whatever the
models compute in.
"""

from __future__ import annotations

from typing import Callable

from mindspore import Tensor, nn

Criterion = Callable[[Tensor, Tensor], Tensor]  # logits, targets -> loss


class Objective(nn.Cell):
    """``student`` is the model in training, and the only part whose parameters go into optimizer, average and
    checkpoint. ``views``: how often it sees each image of a batch."""

    views = 1

    def __init__(self, student: nn.Cell, criterion: Criterion) -> None:
        super().__init__(auto_prefix=False)  # parameters keep the names they have in checkpoints
        self.student, self.criterion = student, criterion
