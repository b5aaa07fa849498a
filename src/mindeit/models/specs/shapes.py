"""What the shapes of a file's tensors tell of its model, whether the names are official or this project's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def count_numbered(shapes: Shapes, pattern: str, first: int = 0) -> int:
    """How many numbered parts there are, numbered from ``first``."""
    numbers = [int(match[1]) for match in map(re.compile(pattern).match, shapes) if match]
    return max(numbers, default=first - 1) + 1 - first


def count_blocks(shapes: Shapes) -> int:
    return count_numbered(shapes, r"blocks\.(\d+)\.")


def patches_alone(shapes: Shapes) -> bool:
    """Whether the position table has no slot for a class token: one or two more than a square are never a square."""
    table = shapes.get("pos_embed", ())
    return len(table) == 3 and table[1] > 0 and math.isqrt(table[1]) ** 2 == table[1]


def patch_size_of(shapes: Shapes) -> int | None:
    projection = shapes.get("patch_embed.proj.weight", ())
    if len(projection) == 4:
        return projection[-1]
    return 16 if "patch_embed.proj.6.weight" in shapes else None  # the hMLP stem's
