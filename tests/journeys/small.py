"""Small models under the official names.

`--model MINI` would take the size along, for a model's name decides it. So the catalogue's rows keep name, kind, patch
and image size here, and lose width and depth: a configuration is used as it is shipped, at its own resolution.
"""

from __future__ import annotations

from dataclasses import replace

from mindeit.models.spec import ModelSpec
from mindeit.models.specs import CATALOGUE


def small(row: ModelSpec) -> ModelSpec:
    """Eight channels a head and a block for every two dozen: a hundredth of the work at the same resolution."""
    if row.family == "regnet":
        return replace(row, variant={"widths": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "group_width": 8})
    heads = row.variant.get("num_heads", row.variant["embed_dim"] // 64)
    return replace(row, variant={**row.variant, "embed_dim": 8 * heads, "depth": max(1, row.variant["depth"] // 24)})


SMALL_ROWS = {name: row if "mini" in name else small(row) for name, row in CATALOGUE.items()}
