"""timm for the tests, which needs it without what it needs itself."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from unittest.mock import MagicMock

import pytest

# PyPI's torchvision fits one build of PyTorch alone, so timm is installed without it (scripts/venv.sh). What timm takes
# from it, transforms and data sets, no model uses: any object in their place lets it be imported.
_TORCHVISION = ("", ".datasets", ".models", ".models.feature_extraction", ".ops", ".ops.misc", ".transforms")
_TORCHVISION = (*_TORCHVISION, ".transforms.functional", ".utils")


def import_timm() -> ModuleType:
    """Skips a test where timm is not installed."""
    if not find_spec("timm"):
        pytest.skip("timm is not installed: pip install --no-deps timm")
    with pytest.MonkeyPatch.context() as patch:
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError):  # the latter beside a PyTorch that it was not made for
            for name in _TORCHVISION:
                patch.setitem(sys.modules, f"torchvision{name}", MagicMock())
        import timm
    return timm
