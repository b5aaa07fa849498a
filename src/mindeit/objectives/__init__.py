"""What training minimises."""

from mindeit.objectives.cosub import CoSub
from mindeit.objectives.distillation import Distilled
from mindeit.objectives.losses import binary_cross_entropy, cross_entropy
from mindeit.objectives.objective import Criterion, Objective
from mindeit.objectives.outside_teacher import OutsideTeacher, Taught
from mindeit.objectives.supervised import Supervised
from mindeit.objectives.teacher import TeacherView, ViewArrays

__all__ = [
    "CoSub",
    "Criterion",
    "Distilled",
    "Objective",
    "OutsideTeacher",
    "Supervised",
    "Taught",
    "TeacherView",
    "ViewArrays",
    "binary_cross_entropy",
    "cross_entropy",
]
