"""The teacher of a distilled student: a model of this project or of MindCV, with its weights."""

from __future__ import annotations

from functools import partial
from typing import Callable

import numpy as np
from mindspore import nn

from mindeit.config import Config
from mindeit.errors import UserError, nearest
from mindeit.export.exported import is_exported, open_exported
from mindeit.export.foreign_onnx import ForeignOnnx
from mindeit.models.registry import list_models
from mindeit.objectives import OutsideTeacher, ViewArrays
from mindeit.weights import checkpoint
from mindeit.weights.card import ModelCard
from mindeit.weights.load import load_for_use
from mindeit.weights.source import weights_file

DEFAULT = "regnety_160"


def load_teacher(config: Config) -> tuple[nn.Cell, ModelCard]:
    """The card says at which resolution and normalisation the teacher sees images."""
    name, path = config.loss.teacher, teacher_file(config)
    if name is not None and name not in list_models():
        return _from_mindcv(name, path)
    assert path is not None  # without a path it is the official file
    return load_for_use(path, model=name, check=not config.model.no_check)


def outside_teacher(config: Config, student: ModelCard) -> OutsideTeacher:
    """One in an exported file, of this project or another."""
    loss, path = config.loss, str(config.loss.teacher_ckpt_path)
    if path.endswith(".onnx") and not (foreign := ForeignOnnx(path)).describes_itself:
        return _foreign(config, foreign, student)
    for name in ("teacher_size", "teacher_mean", "teacher_std"):
        if getattr(loss, name) is not None:
            raise UserError(f"{name} is given, but {path} says itself how its images are prepared; leave it out")
    file = open_exported(path, {"model": loss.teacher} if loss.teacher else {}, check=not config.model.no_check)
    return _outside(file, file.card.image_size, file.card.mean, file.card.std, student, file.card.num_classes)


def _foreign(config: Config, file: ForeignOnnx, student: ModelCard) -> OutsideTeacher:
    loss = config.loss
    size, mean, std = loss.teacher_size or file.image_size, loss.teacher_mean, loss.teacher_std
    if size is None or mean is None or std is None:
        raise UserError(
            f"{file.path} does not say how its images are prepared: give --teacher_size, --teacher_mean and "
            "--teacher_std"
        )
    if loss.teacher is not None:
        raise UserError(f"teacher is {loss.teacher}, but {file.path} is no file of this project; leave it out")
    if file.image_size not in (None, size):
        raise UserError(f"teacher_size is {size}, but {file.path} takes images of {file.image_size} pixels")
    classes = file(np.zeros((1, 3, size, size), np.float32)).shape[-1]
    return _outside(file, size, mean, std, student, classes)


def _outside(
    run: Callable[[np.ndarray], np.ndarray],
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    student: ModelCard,
    classes: int,
) -> OutsideTeacher:
    between = partial(ViewArrays.between, image_size=size, mean=mean, std=std, student_size=student.image_size)
    view = between(student_mean=student.mean, student_std=student.std)
    levels = between(student_mean=(0.0,) * 3, student_std=(1 / 255,) * 3)
    return OutsideTeacher(run, view, levels, classes)


def is_outside(config: Config) -> bool:
    """Whether the teacher runs outside the graph."""
    loss = config.loss
    return loss.distillation_type != "none" and is_exported(loss.teacher_ckpt_path or "")


def teacher_file(config: Config) -> str | None:
    """The given file, else the official one; None without a teacher, or for one of MindCV without a file."""
    loss = config.loss
    if loss.distillation_type == "none":
        return None
    ours = loss.teacher is None or loss.teacher in list_models()
    official = ours and loss.teacher_ckpt_path is None
    return weights_file(loss.teacher_ckpt_path, pretrained=official, model=loss.teacher or DEFAULT)


def _from_mindcv(name: str, path: str | None) -> tuple[nn.Cell, ModelCard]:
    try:
        import mindcv  # optional: needed for its teachers alone
    except ImportError:
        raise UserError(
            f"teacher is '{name}'{nearest(name, list_models())}; teachers of MindCV need it installed "
            "(pip install mindcv)"
        ) from None
    if not mindcv.is_model(name):
        known = [*list_models(), *mindcv.list_models()]
        raise UserError(f"teacher is '{name}'{nearest(name, known)}; allowed: a model of this project or of MindCV")
    if path is None:
        raise UserError(f"teacher {name} of MindCV needs its weights: --teacher_ckpt_path FILE.ckpt")
    state, _ = checkpoint.read(path)
    heads = [value for key, value in state.items() if key.endswith(("classifier.bias", "head.bias", "fc.bias"))]
    classes = len(heads[-1]) if heads else 1000
    model = mindcv.create_model(name, num_classes=classes)
    checkpoint.load_strict(model, state, path)
    model.num_classes = classes  # MindCV's models do not say
    return model, ModelCard(name, classes, 224, 0.875)
