"""MinDeiT: data-efficient image transformers on MindSpore. Names load what they need when they are first used."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from mindeit.version import __version__ as __version__

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from mindeit.errors import UserError
    from mindeit.models.image_model import ImageModel
    from mindeit.models.registry import list_models, register_model
    from mindeit.models.spec import ModelSpec
    from mindeit.models.summary import summary
    from mindeit.predict.predictor import Predictor
    from mindeit.predict.transform import transform_for
    from mindeit.weights.create import create_model
    from mindeit.weights.load import load_model

# Both have to be set before MindSpore is imported: errors only, and no idle threads that spin.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_PUBLIC = {
    "create_model": "mindeit.weights.create",
    "load_model": "mindeit.weights.load",
    "list_models": "mindeit.models.registry",
    "register_model": "mindeit.models.registry",
    "ModelSpec": "mindeit.models.spec",
    "ImageModel": "mindeit.models.image_model",
    "transform_for": "mindeit.predict.transform",
    "summary": "mindeit.models.summary",
    "Predictor": "mindeit.predict.predictor",
    "UserError": "mindeit.errors",
}
__all__ = [
    "ImageModel",
    "ModelSpec",
    "Predictor",
    "UserError",
    "create_model",
    "list_models",
    "load_model",
    "register_model",
    "summary",
    "transform_for",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mindeit' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
