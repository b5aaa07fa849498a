"""The teacher of a distilled student: a model of this project or of MindCV, with its weights."""

from __future__ import annotations

from mindspore import nn

from mindeit.config import Config
from mindeit.errors import UserError, nearest
from mindeit.models.registry import list_models
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
