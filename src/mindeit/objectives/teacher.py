"""The teacher of a distilled student, and the images it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from PIL import Image


@dataclass(frozen=True)
class ViewArrays:
    """How one model's images become another's: resized by ``filters`` (to, size), then times ``scale`` plus ``shift``,
    float32 (1, 3, 1, 1).

    Resizing is Pillow's bicubic filter (antialiased where it shrinks) as two products with constant matrices, so it is
    the same on every device.
    """

    filters: np.ndarray | None
    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def between(
        cls,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        student_size: int,
        student_mean: Sequence[float],
        student_std: Sequence[float],
    ) -> ViewArrays:
        statistics = (student_mean, student_std, mean, std)
        from_mean, from_std, to_mean, to_std = (np.asarray(values, np.float64) for values in statistics)
        scale, shift = from_std / to_std, (from_mean - to_mean) / to_std
        scale, shift = (value.reshape(1, -1, 1, 1).astype(np.float32) for value in (scale, shift))
        return cls(resize_matrix(student_size, image_size) if image_size != student_size else None, scale, shift)

    @property
    def recolours(self) -> bool:
        return bool((self.scale != 1).any() or self.shift.any())

    def apply(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S), as `TeacherView` does it in a graph."""
        images = images.astype(np.float32, copy=False)
        if self.filters is not None:
            images = self.filters @ (images @ np.ascontiguousarray(self.filters.T))
        return images * self.scale + self.shift if self.recolours else images


class TeacherView(nn.Cell):
    """The student's images at the teacher's resolution and normalisation; costs nothing where both agree."""

    def __init__(self, **sizes_and_statistics: Any) -> None:
        """The arguments of `ViewArrays.between`."""
        super().__init__()
        arrays = ViewArrays.between(**sizes_and_statistics)
        self.recolours, self.resizes = arrays.recolours, arrays.filters is not None
        self.scale, self.shift = Tensor(arrays.scale), Tensor(arrays.shift)
        if arrays.filters is not None:
            self.rows, self.columns = Tensor(arrays.filters), Tensor(np.ascontiguousarray(arrays.filters.T))

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
