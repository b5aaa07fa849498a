"""The teacher of a distilled student, and the images it sees."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from PIL import Image


class TeacherView(nn.Cell):
    """The student's images at the teacher's resolution and normalisation; costs nothing where both agree.

    Resizing is Pillow's bicubic filter (antialiased where it shrinks) as two products with constant matrices, so it is
    the same on every device.
    """

    def __init__(
        self,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        student_size: int,
        student_mean: Sequence[float],
        student_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.image_size, self.student_size = image_size, student_size
        statistics = (student_mean, student_std, mean, std)
        from_mean, from_std, to_mean, to_std = (np.asarray(values, np.float64) for values in statistics)
        scale, shift = from_std / to_std, (from_mean - to_mean) / to_std
        self.recolours, self.resizes = bool((scale != 1).any() or shift.any()), image_size != student_size
        self.scale, self.shift = (Tensor(v.reshape(1, -1, 1, 1).astype(np.float32)) for v in (scale, shift))
        if self.resizes:
            filters = resize_matrix(student_size, image_size)
            self.rows, self.columns = Tensor(filters), Tensor(np.ascontiguousarray(filters.T))

    def construct(self, images: Tensor) -> Tensor:
        if self.resizes:
            images = ops.matmul(self.rows, ops.matmul(images, self.columns))
        if self.recolours:
            images = images * self.scale + self.shift
        return images


def resize_matrix(size: int, to: int) -> np.ndarray:
    """Bicubic weights (to, size) of every new pixel: what Pillow makes of the unit matrix's columns."""
    unit = Image.fromarray(np.eye(size, dtype=np.float32))
    return np.asarray(unit.resize((size, to), Image.Resampling.BICUBIC))


class Teacher(nn.Cell):
    """Images as the student sees them -> logits float32 (B, C), frozen: always in evaluation mode, without gradient.

    Its parameters get the prefix "teacher.", so that they never meet those of a student of the same kind.
    """

    def __init__(self, model: nn.Cell, view: TeacherView | None = None) -> None:
        super().__init__(auto_prefix=False)
        model.update_parameters_name("teacher.")
        for parameter in model.get_parameters():
            parameter.requires_grad = False
        self.model, self.view = model.set_train(False), view

    def add_flags_recursive(self, **flags: bool) -> Teacher:
        """`set_train` of the cells around does not change it."""
        flags.pop("training", None)
        return super().add_flags_recursive(**flags)

    def construct(self, images: Tensor) -> Tensor:
        if self.view is not None:
            images = self.view(images)
        return ops.stop_gradient(self.model(images)).astype(ms.float32)
