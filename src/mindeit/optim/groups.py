"""Which parameters are trained, with their decay and learning rate factor (rules of timm 0.3.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindeit.errors import UserError, nearest

if TYPE_CHECKING:
    from mindspore import Parameter, nn

# DeiT's no_weight_decay(). It leaves dist_token out: that one decays under the timm which DeiT pins.
_KEPT = ("cls_token", "pos_embed")
_EMBEDDING = re.compile(r"(cls_token|dist_token|pos_embed|patch_embed)(\.|$)")
_BLOCK = re.compile(r"blocks\w*\.\d+\.")  # also CaiT's blocks_token_only
# --attn-only of DeiT's main.py. Like there, the distillation head stays as it is.
_ATTENTION_ONLY = re.compile(r".*\.attn\.|(head|fc)\.(\d+\.)?(weight|bias)$|pos_embed$")


@dataclass(frozen=True)
class Trained:
    """A parameter the optimizer moves; its learning rate is ``lr_scale`` times the common one."""

    parameter: Parameter
    decay: float
    lr_scale: float


def trained_parameters(
    model: nn.Cell,
    weight_decay: float,
    *,
    layer_decay: float | None = None,
    attn_only: bool = False,
    freeze: Sequence[str] = (),
) -> list[Trained]:
    """The parameters to train, in the model's order; all others no longer require gradients."""
    names = [parameter.name for parameter in model.get_parameters()]
    _check_freeze(freeze, names)
    scales = _layer_scales(names, layer_decay)
    trained = []
    for parameter in model.trainable_params():
        excluded = attn_only and not _ATTENTION_ONLY.match(parameter.name)
        if excluded or any(_begins(parameter.name, entry) for entry in freeze):
            parameter.requires_grad = False
        else:
            decay = weight_decay if _decays(parameter) else 0.0
            trained.append(Trained(parameter, decay, scales[parameter.name]))
    if not trained:
        raise UserError(
            f"nothing is left to train of {len(names)} parameters: attn_only is {attn_only}, "
            f"freeze is {', '.join(freeze) or 'empty'}; free some of them"
        )
    return trained


def _decays(parameter: Parameter) -> bool:
    name = parameter.name
    return len(parameter.shape) != 1 and not name.endswith(".bias") and name not in _KEPT


def _begins(name: str, entry: str) -> bool:
    """Whole parts only: ``blocks.1`` is not the beginning of ``blocks.10.norm1.gamma``."""
    return f"{name}.".startswith(f"{entry.rstrip('.')}.")


def _check_freeze(freeze: Sequence[str], names: Sequence[str]) -> None:
    parts = [name.split(".") for name in names]
    known = dict.fromkeys(".".join(part[:length]) for part in parts for length in range(1, len(part) + 1))
    for entry in freeze:
        if not any(_begins(name, entry) for name in names):
            raise UserError(
                f"freeze names '{entry}', which no parameter of the model is or begins with{nearest(entry, known)}"
            )


def _layer_scales(names: Sequence[str], layer_decay: float | None) -> dict[str, float]:
    """Embeddings are layer 0, blocks follow, head and last norm come last at the full learning rate (as BEiT)."""
    if layer_decay is None:
        return dict.fromkeys(names, 1.0)
    matches = {name: _BLOCK.match(name) for name in names}
    blocks = list(dict.fromkeys(match.group() for match in matches.values() if match))
    if not blocks:
        raise UserError(f"layer_decay is {layer_decay}, but the model has no numbered blocks; leave layer_decay out")
    last = len(blocks) + 1
    layers = {name: 1 + blocks.index(match.group()) if match else last for name, match in matches.items()}
    layers.update({name: 0 for name in names if _EMBEDDING.match(name)})
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}
