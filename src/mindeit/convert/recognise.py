"""Which model a file of weights belongs to, told by names and shapes alone. Works for official names and for ours."""
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mindeit.errors import UserError
from mindeit.models.catalogue import CATALOGUE, ModelSpec

Shapes = Mapping[str, tuple[int, ...]]


def recognise(shapes: Shapes) -> str:
    """The model's name. The position table decides the resolution; the head's width does not count."""
    found = candidates(shapes)
    if not found:
        first = ", ".join(list(shapes)[:3])
        raise UserError(f"the weights fit no known model ({len(shapes)} tensors: {first}, ...); "
                        f"allowed: {', '.join(CATALOGUE)}")
    size = table_image_size(shapes)
    fitting = [row for row in found if row.image_size == size] if len(found) > 1 else found
    if len(fitting) != 1:
        names = " or ".join(row.name for row in found)
        raise UserError(f"the weights could be {names}: their position table is for images of {size}; "
                        f"say which with --model, and --image_size to resize the table")
    return fitting[0].name


def candidates(shapes: Shapes) -> list[ModelSpec]:
    """Models of this architecture, whatever their resolution."""
    traits = {family: look(shapes) for family, look in _TRAITS.items()}
    return [row for row in CATALOGUE.values() if _fits(row, traits.get(row.family, {}))]


def _fits(row: ModelSpec, traits: Mapping[str, Any]) -> bool:
    return bool(traits) and all(row.variant[key] == value for key, value in traits.items())


def _deit_traits(shapes: Shapes) -> dict[str, Any]:
    """The number of heads leaves no trace in the shapes; the width implies it."""
    projection = shapes.get("patch_embed.proj.weight", ())
    if len(projection) != 4 or "pos_embed" not in shapes or "cls_token" not in shapes or "blocks.0.gamma_1" in shapes:
        return {}
    depth = _count(shapes, r"blocks\.(\d+)\.")
    return {
        "embed_dim": projection[0], "patch_size": projection[-1], "depth": depth, "distilled": "dist_token" in shapes
    }


def _regnet_traits(shapes: Shapes) -> dict[str, Any]:
    stages = range(1, 1 + _count(shapes, r"s(\d+)\.b1\.", first=1))
    last = [shapes.get(f"s{stage}.b1.conv3.conv.weight", ()) for stage in stages]
    grouped = shapes.get("s1.b1.conv2.conv.weight", ())
    if not last or not all(last) or len(grouped) != 4:
        return {}
    depths = tuple(_count(shapes, rf"s{stage}\.b(\d+)\.", first=1) for stage in stages)
    return {"widths": tuple(shape[0] for shape in last), "depths": depths, "group_width": grouped[1]}


_TRAITS = {"deit": _deit_traits, "regnet": _regnet_traits}


def _count(shapes: Shapes, pattern: str, first: int = 0) -> int:
    """How many numbered parts there are, numbered from ``first``."""
    numbers = [int(match[1]) for match in map(re.compile(pattern).match, shapes) if match]
    return max(numbers, default=first - 1) + 1 - first


def table_image_size(shapes: Shapes) -> int | None:
    """The resolution a position table belongs to; None where there is no table or it is no square."""
    table, projection = shapes.get("pos_embed", ()), shapes.get("patch_embed.proj.weight", ())
    if len(table) != 3 or len(projection) != 4:
        return None
    patches = table[1] - ("cls_token" in shapes) - ("dist_token" in shapes)
    grid = math.isqrt(max(patches, 0))
    return grid * projection[-1] if grid and grid * grid == patches else None


def head_classes(shapes: Shapes) -> int | None:
    """The head's width; None where the weights hold no head."""
    for name in ("head.weight", "head.bias", "head_dist.weight", "head.fc.weight", "head.fc.bias"):
        if name in shapes:
            return shapes[name][0]
    return None
