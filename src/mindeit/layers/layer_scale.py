from __future__ import annotations

from typing import Optional

from mindspore import Parameter, Tensor

from mindeit.layers.initial import constant


def layer_scale(dim: int, start: Optional[float]) -> Optional[Parameter]:
    """A residual branch's gain per channel (CaiT's LayerScale), (dim,); None where ``start`` is None: no gain."""
    return None if start is None else Parameter(constant((dim,), start))


def scaled(branch: Tensor, gain: Optional[Parameter]) -> Tensor:
    return branch if gain is None else branch * gain
