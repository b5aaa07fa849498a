"""``import mindeit.mindcv``, and ``mindcv.create_model("deit_tiny_patch16_224")`` makes this project's models.

Names of this project win over MindCV's own, which have other parameter names, and weights without proof of parity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from mindspore import Tensor, nn

from mindeit.errors import UserError
from mindeit.models.backbone import Backbone
from mindeit.models.registry import list_models, spec
from mindeit.models.spec import ModelSpec
from mindeit.weights.create import create_model

try:
    from mindcv.models.registry import register_model
except ImportError:
    raise UserError(
        "mindeit.mindcv registers models with MindCV, which is not installed (pip install mindcv)"
    ) from None

__all__: list[str] = []  # MindCV adds each name


class FeatureMaps(nn.Cell):
    """Images -> maps (batch, dim, rows, columns) after the blocks ``indices``, as MindCV's ``features_only`` gives."""

    def __init__(self, model: Backbone, indices: Sequence[int] | None = None) -> None:
        super().__init__(auto_prefix=False)  # parameters keep the model's names
        self.model = model
        self.indices = list(range(len(model.blocks)) if indices is None else indices)

    @property
    def out_channels(self) -> list[int]:
        return [self.model.num_features] * len(self.indices)

    def construct(self, images: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(images, self.indices, intermediates_only=True)  # type: ignore[return-value]  # so it is a list


def _entry(name: str) -> Callable[..., nn.Cell]:
    def create(
        pretrained: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        **options: Any,
    ) -> nn.Cell:
        if features_only and spec(name).family == "regnet":
            raise UserError(f"features_only is for models of patches; {name} has none")
        if out_indices is not None and not features_only:
            raise UserError("out_indices is for features_only=True")
        model = create_model(name, num_classes=num_classes, pretrained=pretrained, in_channels=in_channels, **options)
        return FeatureMaps(model, out_indices) if features_only else model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{name} of mindeit; options as for `mindeit.create_model`."
    return create


def _config(row: ModelSpec) -> dict[str, Any]:
    """What MindCV keeps of a model with weights."""
    return {
        "url": row.published.url if row.published else "",
        "num_classes": 1000,
        "first_conv": "patch_embed.proj",
        "input_size": (3, row.image_size, row.image_size),
        "classifier": "head",
        "crop_pct": row.crop_pct,
    }


default_cfgs = {name: _config(spec(name)) for name in list_models()}  # MindCV looks for this name
for _name in default_cfgs:
    register_model(_entry(_name))
