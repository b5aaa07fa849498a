"""``import mindeit.mindcv``, and ``mindcv.create_model("deit_tiny_patch16_224")`` makes this project's models.

Names of this project win over MindCV's own, which have other parameter names, and weights without proof of parity.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from mindeit.convert.load import create_model
from mindeit.errors import UserError
from mindeit.models.registry import list_models

try:
    from mindcv.models.registry import register_model
except ImportError:
    raise UserError("mindeit.mindcv registers models with MindCV, which is not installed (pip install mindcv)"
                    ) from None

if TYPE_CHECKING:
    from mindspore import nn

__all__: list[str] = []  # MindCV adds each name


def _entry(name: str) -> Callable[..., nn.Cell]:
    def create(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Cell:
        if in_channels != 3:
            raise UserError(f"in_channels is {in_channels}; allowed: 3 ({name})")
        return create_model(name, num_classes=num_classes, pretrained=pretrained, **options)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{name} of mindeit; options as for `mindeit.create_model`."
    return create


for _name in list_models():
    register_model(_entry(_name))
