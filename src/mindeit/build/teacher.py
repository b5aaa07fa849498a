"""The model that a distilled student follows: one of ours, or of MindCV, with its weights."""
from __future__ import annotations

from typing import TYPE_CHECKING

from mindeit.errors import UserError, nearest

if TYPE_CHECKING:
    from mindspore import nn

    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config

DEFAULT = "regnety_160"


def load_teacher(config: Config) -> tuple[nn.Cell, ModelCard]:
    """The card says at which resolution and normalisation the teacher sees pictures."""
    from mindeit.convert.load import load_for_use
    from mindeit.models.registry import list_models

    name, path = config.loss.teacher, weights_of_teacher(config)
    if name is not None and name not in list_models():
        return _from_mindcv(name, path)
    return load_for_use(path, model=name, check=not config.model.no_check)


def weights_of_teacher(config: Config) -> str | None:
    """The file given, else the official one; None: neither."""
    from mindeit.convert.pretrained import fetch_pretrained
    from mindeit.models.registry import list_models

    name, path = config.loss.teacher, config.loss.teacher_ckpt_path
    if path is None and (name is None or name in list_models()):
        return str(fetch_pretrained(name or DEFAULT))
    return path


def _from_mindcv(name: str, path: str | None) -> tuple[nn.Cell, ModelCard]:
    from mindeit import checkpoint
    from mindeit.checkpoint import ModelCard
    from mindeit.models.registry import list_models

    try:
        import mindcv
    except ImportError:
        raise UserError(f"teacher is '{name}'{nearest(name, list_models())}; teachers of MindCV need it installed "
                        "(pip install mindcv)") from None
    if not mindcv.is_model(name):
        known = [*list_models(), *mindcv.list_models()]
        raise UserError(f"teacher is '{name}'{nearest(name, known)}; allowed: a model of this project or of MindCV")
    if path is None:
        raise UserError(f"teacher {name} of MindCV needs its weights: --teacher_ckpt_path FILE.ckpt")
    state, _ = checkpoint.read(path)
    heads = [value for key, value in state.items() if key.endswith(("classifier.bias", "head.bias", "fc.bias"))]
    model = mindcv.create_model(name, num_classes=len(heads[-1]) if heads else 1000)
    checkpoint.load_strict(model, state, path)
    classes = len(heads[-1]) if heads else 1000
    model.num_classes = classes
    return model, ModelCard(name, classes, 224, 0.875)
