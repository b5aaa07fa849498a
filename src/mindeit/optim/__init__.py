"""Learning rates, parameter groups and the optimizers that turn gradients into new weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from mindeit.errors import UserError, nearest

if TYPE_CHECKING:
    from mindeit.optim.base import Optimizer
    from mindeit.optim.flat import FlatParameters


def create(
    name: str,
    flat: FlatParameters,
    *,
    betas: Optional[Sequence[float]] = None,
    eps: float = 1e-8,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> Optimizer:
    """The optimizer of that name; ``betas`` None: its own. Each takes what its formula has, the rest is left aside."""
    from mindeit.optim import adamw, adan, lamb, lion, sgd

    kinds = {"adamw": adamw.AdamW, "lamb": lamb.Lamb, "sgd": sgd.SGD, "lion": lion.Lion, "adan": adan.Adan}
    if name not in kinds:
        raise UserError(f"opt is '{name}'; allowed: {', '.join(kinds)}{nearest(name, kinds)}")
    kind = kinds[name]
    given = {"betas": betas if betas is None else tuple(betas), "eps": eps, "momentum": momentum, "nesterov": nesterov}
    options = {key: given[key] for key in kind.options if given[key] is not None}
    if "betas" in options and len(options["betas"]) != kind.beta_count:
        raise UserError(f"betas is {options['betas']}; {name} takes {kind.beta_count} values")
    return kind(flat, **options)
