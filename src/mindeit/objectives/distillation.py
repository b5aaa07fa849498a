"""Learning from labels and from a teacher."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from mindeit.errors import UserError, nearest
from mindeit.models.image_model import ImageModel
from mindeit.objectives.losses import REDUCTIONS, hard_distillation, soft_distillation
from mindeit.objectives.objective import Criterion, Objective
from mindeit.objectives.teacher import Teacher, TeacherView

KINDS = ("soft", "hard")


class Following(Objective):
    """``(1 - alpha) * criterion(class head, targets) + alpha * distillation(distillation head, teacher)``.

    A student of one head follows targets and teacher with it, which the official code, made for two, refuses.
    kind: "soft" (temperature ``tau``, ``reduction`` as in `losses.soft_distillation`) or "hard". `set_train` switches
    the student's dropout and stochastic depth; its two heads come out either way, so that fine-tuning with
    ``set_train(False)`` distils too.
    """

    def __init__(
        self,
        student: ImageModel,
        criterion: Criterion,
        num_classes: int,
        *,
        kind: str = "hard",
        alpha: float = 0.5,
        tau: float = 1.0,
        reduction: str = "official",
    ) -> None:
        """``num_classes``: the teacher's."""
        _check_options(kind, alpha, tau, reduction)
        if num_classes != student.num_classes:
            raise UserError(
                f"the teacher tells {num_classes} classes apart, the student {student.num_classes}; "
                "distillation needs a teacher trained on the student's classes"
            )
        super().__init__(student, criterion)
        self.two_heads = student.distilled
        self.kind, self.alpha, self.tau, self.reduction = kind, alpha, tau, reduction
        self._show_heads()

    def add_flags_recursive(self, **flags: bool) -> Following:
        """What `set_train` calls, here or on any cell around this one."""
        super().add_flags_recursive(**flags)
        self._show_heads()
        return self

    def _show_heads(self) -> None:
        """A distilled model in evaluation hides its two heads, by its own flag."""
        if self.two_heads:
            self.student.add_flags(training=True)

    def compare(self, outputs: Tensor | tuple[Tensor, Tensor], targets: Tensor, wanted: Tensor) -> Tensor:
        """The loss of the student's ``outputs``; ``wanted``: the teacher's logits."""
        if not self.two_heads:
            outputs = (outputs, outputs)
        elif not isinstance(outputs, tuple):
            raise ValueError("the student is in evaluation mode: call set_train on the objective again")
        logits, own = outputs[0].astype(ms.float32), outputs[1].astype(ms.float32)
        if self.kind == "soft":
            distillation = soft_distillation(own, wanted, self.tau, self.reduction)
        else:
            distillation = hard_distillation(own, wanted)
        return (1 - self.alpha) * self.criterion(logits, targets) + self.alpha * distillation


class Distilled(Following):
    """With the teacher in the graph. ``view`` tells what it sees; None: the student's images as they are. A teacher of
    another library has to say its ``num_classes``."""

    def __init__(
        self,
        student: ImageModel,
        teacher: nn.Cell,
        criterion: Criterion,
        *,
        view: TeacherView | None = None,
        **options: Any,
    ) -> None:
        super().__init__(student, criterion, teacher.num_classes, **options)
        self.teacher = Teacher(teacher, view)

    def construct(self, images: Tensor, targets: Tensor) -> Tensor:
        return self.compare(self.student(images), targets, self.teacher(images))


def _check_options(kind: str, alpha: float, tau: float, reduction: str) -> None:
    for name, value, known in (("distillation_type", kind, KINDS), ("distillation_reduction", reduction, REDUCTIONS)):
        if value not in known:
            raise UserError(f"{name} is '{value}'; allowed: {', '.join(known)}{nearest(value, known)}")
    if not 0 <= alpha <= 1:
        raise UserError(f"distillation_alpha is {alpha}; allowed: 0 to 1")
    if not tau > 0:
        raise UserError(f"distillation_tau is {tau}; allowed: above 0")
