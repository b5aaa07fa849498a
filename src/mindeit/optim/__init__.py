"""Learning rates, parameter groups and the optimizers that turn gradients into new weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindeit.errors import UserError, nearest
from mindeit.optim.adamw import AdamW
from mindeit.optim.adan import Adan
from mindeit.optim.base import Optimizer
from mindeit.optim.flat import FlatParameters
from mindeit.optim.lamb import Lamb
from mindeit.optim.lion import Lion
from mindeit.optim.sgd import SGD

_OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "lamb": Lamb, "sgd": SGD, "lion": Lion, "adan": Adan}


def create(
    name: str,
    flat: FlatParameters,
    *,
    betas: Sequence[float] | None = None,
    eps: float = 1e-8,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> Optimizer:
    """The optimizer of that name; ``betas`` None: its own. Options that its formula does not have are ignored."""
    if name not in _OPTIMIZERS:
        raise UserError(f"opt is '{name}'; allowed: {', '.join(_OPTIMIZERS)}{nearest(name, _OPTIMIZERS)}")
    kind = _OPTIMIZERS[name]
    given = {"betas": betas if betas is None else tuple(betas), "eps": eps, "momentum": momentum, "nesterov": nesterov}
    options: dict[str, Any] = {key: given[key] for key in kind.options if given[key] is not None}
    if "betas" in options and len(options["betas"]) != kind.beta_count:
        raise UserError(f"betas is {options['betas']}; {name} takes {kind.beta_count} values")
    return kind(flat, **options)
