"""Less memory for more time: a block's activations are dropped after it and computed again in the backward pass."""

from __future__ import annotations

from mindspore import nn

from mindeit.errors import UserError
from mindeit.kernels.block import FusedBlock


def recompute_blocks(model: nn.Cell) -> None:
    """Mark every block of ``model``. Works in graph mode only, and changes no number.

    Drop paths read the step's table of draws both times. Dropout, which would draw anew, keeps what it gave.
    """
    blocks = [block for name in ("blocks", "blocks_token_only") for block in getattr(model, name, ())]
    if not blocks:
        raise UserError(f"recompute is True; a {type(model).__name__} has no blocks to compute again; allowed: False")
    for block in blocks:
        block.recompute()
        for _, cell in block.cells_and_names():
            if isinstance(cell, nn.Dropout):
                cell.dropout.recompute(False)
            if isinstance(cell, FusedBlock):
                cell.keeps = False
