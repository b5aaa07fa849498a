"""What training minimises: cells ``(images, targets) -> loss``. The step that runs one never learns which.

images: normalised, float32 (B, 3, S, S); targets: soft, float32 (B, C). ``student`` is the model in training, and the
only part whose parameters belong into optimizer, average and checkpoint. Losses are computed in float32 whatever the
models compute in.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from PIL import Image

from mindeit.errors import UserError, nearest
from mindeit.losses import REDUCTIONS, binary_cross_entropy, hard_distillation, soft_distillation
from mindeit.runtime.device import operator_by_operator

Criterion = Callable[[Tensor, Tensor], Tensor]  # logits, targets -> loss
KINDS = ("soft", "hard")


class Supervised(nn.Cell):
    """The criterion alone.

    A distilled student learns as DistillationLoss of facebookresearch/deit teaches it without a teacher: in training
    its class head alone (the other one stays as it is), in evaluation mode (``set_train(False)``) the heads' mean.
    """

    def __init__(self, student: nn.Cell, criterion: Criterion) -> None:
        super().__init__(auto_prefix=False)  # parameters keep the names they have in checkpoints
        self.student, self.criterion = student, criterion

    def construct(self, images: Tensor, targets: Tensor) -> Tensor:
        outputs = self.student(images)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return self.criterion(logits.astype(ms.float32), targets)


class CoSub(nn.Cell):
    """Two submodels of one student, drawn by stochastic depth, teach each other (https://arxiv.org/abs/2212.04884).

    Every picture passes twice in one batch of 2B, so that its two halves draw their own paths. As in engine.py of
    facebookresearch/deit, a quarter each: both criteria, and both binary cross entropies with the other's sigmoid.
    """

    views = 2  # draws for the drop paths that each picture takes

    def __init__(self, student: nn.Cell, criterion: Criterion = binary_cross_entropy) -> None:
        super().__init__(auto_prefix=False)
        if getattr(student, "distilled", False):
            raise UserError("CoSub trains models of one head; the student has a distillation head")
        self.student, self.criterion = student, criterion

    def construct(self, images: Tensor, targets: Tensor) -> Tensor:
        batch = images.shape[0]
        both = self.student(ops.concat((images, images))).astype(ms.float32)
        first, second = both[:batch], both[batch:]
        learned = self.criterion(first, targets) + self.criterion(second, targets)
        return (learned + _follow(first, second) + _follow(second, first)) / 4


def _follow(logits: Tensor, other: Tensor) -> Tensor:
    return binary_cross_entropy(logits, ops.stop_gradient(ops.sigmoid(other)))


class Distilled(nn.Cell):
    """``(1 - alpha) * criterion(class head, targets) + alpha * distillation(distillation head, teacher)``.

    kind: "soft" (temperature ``tau``, ``reduction`` as in `losses.soft_distillation`) or "hard". ``view`` tells what
    the teacher sees; None: the student's pictures as they are. `set_train` switches the student's dropout and
    stochastic depth; its two heads come out either way, so that fine-tuning with ``set_train(False)`` distils too.
    """

    def __init__(
        self,
        student: nn.Cell,
        teacher: nn.Cell,
        criterion: Criterion,
        *,
        kind: str = "hard",
        alpha: float = 0.5,
        tau: float = 1.0,
        reduction: str = "official",
        view: Optional[TeacherView] = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        _check_options(kind, alpha, tau, reduction)
        _check_pair(student, teacher, view)
        self.student, self.teacher, self.criterion = student, Teacher(teacher, view), criterion
        self.kind, self.alpha, self.tau, self.reduction = kind, alpha, tau, reduction
        student.add_flags(training=True)

    def add_flags_recursive(self, **flags: bool) -> Distilled:
        """What `set_train` calls, here or on any cell around this one."""
        super().add_flags_recursive(**flags)
        self.student.add_flags(training=True)  # its own flag only: a distilled model in evaluation hides its two heads
        return self

    def construct(self, images: Tensor, targets: Tensor) -> Tensor:
        outputs = self.student(images)
        if not isinstance(outputs, tuple):
            raise ValueError("the student is in evaluation mode: call set_train on the objective again")
        logits, own = outputs[0].astype(ms.float32), outputs[1].astype(ms.float32)
        wanted = self.teacher(images)
        if self.kind == "soft":
            distillation = soft_distillation(own, wanted, self.tau, self.reduction)
        else:
            distillation = hard_distillation(own, wanted)
        return (1 - self.alpha) * self.criterion(logits, targets) + self.alpha * distillation


class TeacherView(nn.Cell):
    """The student's pictures at the teacher's resolution and normalisation; costs nothing where both agree.

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
        own_mean, own_std, mean, std = (np.asarray(v, np.float64) for v in (student_mean, student_std, mean, std))
        scale, shift = own_std / std, (own_mean - mean) / std
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
    """Images as the student sees them -> logits float32 (B, C), frozen: evaluation mode for good, no gradient.

    Its parameters get the prefix "teacher.", so that they never meet those of a student of the same kind.
    """

    def __init__(self, model: nn.Cell, view: Optional[TeacherView] = None) -> None:
        super().__init__(auto_prefix=False)
        model.update_parameters_name("teacher.")
        for parameter in model.get_parameters():
            parameter.requires_grad = False
        self.model, self.view = model.set_train(False), view

    def add_flags_recursive(self, **flags: bool) -> Teacher:
        """`set_train` of the cells around passes by."""
        flags.pop("training", None)
        return super().add_flags_recursive(**flags)

    def construct(self, images: Tensor) -> Tensor:
        if self.view is not None:
            images = self.view(images)
        return ops.stop_gradient(self.model(images)).astype(ms.float32)


def _check_options(kind: str, alpha: float, tau: float, reduction: str) -> None:
    for name, value, known in (("distillation_type", kind, KINDS), ("distillation_reduction", reduction, REDUCTIONS)):
        if value not in known:
            raise UserError(f"{name} is '{value}'; allowed: {', '.join(known)}{nearest(value, known)}")
    if not 0 <= alpha <= 1:
        raise UserError(f"distillation_alpha is {alpha}; allowed: 0 to 1")
    if not tau > 0:
        raise UserError(f"distillation_tau is {tau}; allowed: above 0")


def _check_pair(student: nn.Cell, teacher: nn.Cell, view: Optional[TeacherView]) -> None:
    if not getattr(student, "distilled", False):
        raise UserError("the student has no distillation head; distillation needs a model that has one, such as "
                        "deit_tiny_distilled_patch16_224, or distillation_type none")
    classes = _classes(teacher, student.image_size if view is None else view.image_size)
    if classes != student.num_classes:
        raise UserError(f"the teacher tells {classes} classes apart, the student {student.num_classes}; "
                        "distillation needs a teacher trained on the student's classes")


def _classes(model: nn.Cell, image_size: int) -> int:
    """Models of other libraries may not say how many classes they know: one black picture tells."""
    if hasattr(model, "num_classes"):
        return model.num_classes
    with operator_by_operator():
        return model.set_train(False)(Tensor(np.zeros((1, 3, image_size, image_size), np.float32))).shape[1]
