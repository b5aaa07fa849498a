"""A teacher outside the graph: its logits are computed on the host, batch by batch, and travel with the targets."""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindeit.errors import UserError
from mindeit.models.image_model import ImageModel
from mindeit.objectives.distillation import Following
from mindeit.objectives.objective import Criterion
from mindeit.objectives.teacher import ViewArrays


class OutsideTeacher:
    """(images as the student sees them, targets) -> targets and the teacher's logits side by side, (B, 2C).

    ``run``: images (B, 3, S, S) as the teacher's ``view`` makes them -> logits. Levels 0..255 are normalised first.
    """

    def __init__(
        self, run: Callable[[np.ndarray], np.ndarray], view: ViewArrays, levels: ViewArrays, num_classes: int
    ) -> None:
        self._run, self._view, self._levels, self.num_classes = run, view, levels, num_classes

    def __call__(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        view = self._levels if images.dtype == np.uint8 else self._view
        logits = np.asarray(self._run(view.apply(images)), np.float32)
        if logits.shape != targets.shape:
            raise UserError(f"the teacher gives {logits.shape} for {len(images)} images, expected {targets.shape}")
        return np.concatenate([targets, logits], 1)


class Taught(Following):
    """Distillation by logits that stand behind the targets: (images, (B, 2C)) -> loss."""

    def __init__(self, student: ImageModel, criterion: Criterion, num_classes: int, **options: Any) -> None:
        super().__init__(student, criterion, num_classes, **options)
        self.num_classes = num_classes

    def construct(self, images: Tensor, both: Tensor) -> Tensor:
        targets, wanted = both[:, : self.num_classes], both[:, self.num_classes :]
        return self.compare(self.student(images), targets, wanted.astype(ms.float32))
