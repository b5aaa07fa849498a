"""MinDeiT: data-efficient image transformers on MindSpore. Names load what they need when they are first used."""

from __future__ import annotations

import importlib
import os

# Both have to be set before MindSpore is imported: errors only, and no idle threads that spin.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_PUBLIC = {
    "create_model": "mindeit.weights.load",
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
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mindeit' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
