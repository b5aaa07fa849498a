"""Cooperative learning of submodels."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from mindeit.errors import UserError
from mindeit.models.image_model import ImageModel
from mindeit.objectives.losses import binary_cross_entropy
from mindeit.objectives.objective import Criterion, Objective


class CoSub(Objective):
    """Two submodels of one student, drawn by stochastic depth, teach each other (https://arxiv.org/abs/2212.04884).

    Every image passes twice in one batch of 2B, so that its two halves draw their own paths. As in engine.py of
    facebookresearch/deit, a quarter each: both criteria, and both binary cross entropies with the other's sigmoid.
    """

    views = 2

    def __init__(self, student: ImageModel, criterion: Criterion = binary_cross_entropy) -> None:
        if student.distilled:
            raise UserError("CoSub trains models of one head; the student has a distillation head")
        super().__init__(student, criterion)

    def construct(self, images: Tensor, targets: Tensor) -> Tensor:
        batch = images.shape[0]
        both = self.student(ops.concat((images, images))).astype(ms.float32)
        first, second = both[:batch], both[batch:]
        learned = self.criterion(first, targets) + self.criterion(second, targets)
        return (learned + _follow(first, second) + _follow(second, first)) / 4


def _follow(logits: Tensor, other: Tensor) -> Tensor:
    return binary_cross_entropy(logits, ops.stop_gradient(ops.sigmoid(other)))
