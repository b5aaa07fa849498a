"""The PyTorch reference of a model, by its name."""

from __future__ import annotations

import importlib

from torch import nn

from mindeit.errors import UserError
from mindeit.models.registry import spec
from mindeit.models.specs import FAMILIES


def build_reference(name: str, *, num_classes: int, image_size: int) -> nn.Module:
    """The PyTorch model ``name`` in evaluation mode. Each family's file names its model ``build``."""
    row = spec(name)
    if row.family not in FAMILIES:
        raise UserError(f"there is no PyTorch reference of '{name}'; allowed: models of {', '.join(FAMILIES)}")
    family = importlib.import_module(f"mindeit.torch_reference.{row.family}")
    return family.build(**row.variant, num_classes=num_classes, image_size=image_size).eval()
