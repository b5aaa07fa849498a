"""Finds the model that weights belong to, by names and shapes alone: official names or ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mindeit.errors import UserError
from mindeit.models.spec import ModelSpec
from mindeit.models.specs import CATALOGUE, FAMILIES
from mindeit.models.specs.shapes import Shapes, count_numbered, patch_size_of, patches_alone


def identify(shapes: Shapes) -> str:
    """The model's name. The position table decides the resolution; the head's width does not count."""
    found = candidates(shapes)
    if not found:
        first = ", ".join(list(shapes)[:3])
        raise UserError(
            f"the weights fit no known model ({len(shapes)} tensors: {first}, ...); allowed: {', '.join(CATALOGUE)}"
        )
    size = table_image_size(shapes)
    fitting = [row for row in found if row.image_size == size] if len(found) > 1 else found
    if len(fitting) != 1:
        names = " or ".join(row.name for row in found)
        raise UserError(
            f"the weights could be {names}: their position table is for images of {size}; "
            f"say which with --model, and --image_size to resize the table"
        )
    return fitting[0].name


def candidates(shapes: Shapes) -> list[ModelSpec]:
    """Models of this architecture, whatever their resolution."""
    traits = {name: family.traits(shapes) for name, family in FAMILIES.items()}
    return [row for row in CATALOGUE.values() if _fits(row, traits.get(row.family, {}))]


def _fits(row: ModelSpec, traits: Mapping[str, Any]) -> bool:
    return bool(traits) and all(row.variant[key] == value for key, value in traits.items())


def table_image_size(shapes: Shapes) -> int | None:
    """The resolution a position table, or ResMLP's mixture of patches, belongs to; None where none tells."""
    table, mixture = shapes.get("pos_embed", ()), shapes.get("blocks.0.attn.weight", ())
    patch_size = patch_size_of(shapes)
    if not patch_size or len(table) != 3 and len(mixture) != 2:
        return None
    slots = 0 if patches_alone(shapes) else ("cls_token" in shapes) + ("dist_token" in shapes)
    patches = table[1] - slots if table else mixture[0]
    grid = math.isqrt(max(patches, 0))
    return grid * patch_size if grid and grid * grid == patches else None


def head_classes(shapes: Shapes) -> int | None:
    """The head's width, or the number of heads of one class; None where the weights hold no head."""
    for name in ("head.weight", "head.bias", "head_dist.weight", "head.fc.weight", "head.fc.bias"):
        if name in shapes:
            return shapes[name][0]
    return count_numbered(shapes, r"head\.(\d+)\.") or None
