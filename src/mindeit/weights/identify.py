"""Which model a file of weights belongs to, told by names and shapes alone. Works for official names and for ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mindeit.errors import UserError
from mindeit.models.catalogue import CATALOGUE
from mindeit.models.spec import ModelSpec

Shapes = Mapping[str, tuple[int, ...]]


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
    traits = {family: look(shapes) for family, look in _TRAITS.items()}
    return [row for row in CATALOGUE.values() if _fits(row, traits.get(row.family, {}))]


def _fits(row: ModelSpec, traits: Mapping[str, Any]) -> bool:
    return bool(traits) and all(row.variant[key] == value for key, value in traits.items())


def _deit_traits(shapes: Shapes) -> dict[str, Any]:
    """The number of heads leaves no trace in the shapes; the width implies it."""
    projection = shapes.get("patch_embed.proj.weight", ())
    foreign = _patches_alone(shapes) or "blocks.0.gamma_1" in shapes
    if foreign or not {"cls_token", "pos_embed"} <= set(shapes) or len(projection) != 4:
        return {}
    return {
        "embed_dim": projection[0],
        "patch_size": projection[-1],
        "depth": _depth(shapes),
        "distilled": "dist_token" in shapes,
    }


def _deit3_traits(shapes: Shapes) -> dict[str, Any]:
    table = shapes.get("pos_embed", ())
    if not _patches_alone(shapes) or "blocks.0.attn.qkv.weight" not in shapes or "blocks.0.attn.proj_l.bias" in shapes:
        return {}
    return {
        "embed_dim": table[-1],
        "patch_size": _patch_size(shapes),
        "depth": _depth(shapes),
        "parallel": "blocks.0.attn1.qkv.weight" in shapes,
        "hmlp_stem": "patch_embed.proj.0.weight" in shapes,
        "init_scale": 1e-4 if "blocks.0.gamma_1" in shapes else None,
    }


def _cait_traits(shapes: Shapes) -> dict[str, Any]:
    projection = shapes.get("patch_embed.proj.weight", ())
    if "blocks.0.attn.proj_l.weight" not in shapes or len(projection) != 4:
        return {}
    return {"embed_dim": projection[0], "patch_size": projection[-1], "depth": _depth(shapes)}


def _resmlp_traits(shapes: Shapes) -> dict[str, Any]:
    projection = shapes.get("patch_embed.proj.weight", ())
    if "blocks.0.norm1.alpha" not in shapes or len(projection) != 4:
        return {}
    return {"embed_dim": projection[0], "patch_size": projection[-1], "depth": _depth(shapes)}


def _patchconvnet_traits(shapes: Shapes) -> dict[str, Any]:
    convolution = shapes.get("blocks.0.attn.qkv_pos.0.weight", ())
    if len(convolution) != 4:
        return {}
    return {
        "embed_dim": convolution[0],
        "depth": _depth(shapes),
        "token_per_class": "head.0.weight" in shapes or shapes.get("cls_token", (1, 1))[1] > 1,
    }


def _depth(shapes: Shapes) -> int:
    return _count(shapes, r"blocks\.(\d+)\.")


def _patches_alone(shapes: Shapes) -> bool:
    """Whether the position table has no slot for a class token: one or two more than a square are never a square."""
    table = shapes.get("pos_embed", ())
    return len(table) == 3 and table[1] > 0 and math.isqrt(table[1]) ** 2 == table[1]


def _regnet_traits(shapes: Shapes) -> dict[str, Any]:
    stages = range(1, 1 + _count(shapes, r"s(\d+)\.b1\.", first=1))
    last = [shapes.get(f"s{stage}.b1.conv3.conv.weight", ()) for stage in stages]
    grouped = shapes.get("s1.b1.conv2.conv.weight", ())
    if not last or not all(last) or len(grouped) != 4:
        return {}
    depths = tuple(_count(shapes, rf"s{stage}\.b(\d+)\.", first=1) for stage in stages)
    return {"widths": tuple(shape[0] for shape in last), "depths": depths, "group_width": grouped[1]}


_TRAITS = {
    "deit": _deit_traits,
    "deit3": _deit3_traits,
    "cait": _cait_traits,
    "resmlp": _resmlp_traits,
    "patchconvnet": _patchconvnet_traits,
    "regnet": _regnet_traits,
}


def _count(shapes: Shapes, pattern: str, first: int = 0) -> int:
    """How many numbered parts there are, numbered from ``first``."""
    numbers = [int(match[1]) for match in map(re.compile(pattern).match, shapes) if match]
    return max(numbers, default=first - 1) + 1 - first


def table_image_size(shapes: Shapes) -> int | None:
    """The resolution a position table, or ResMLP's mixture of patches, belongs to; None where none tells."""
    table, mixture = shapes.get("pos_embed", ()), shapes.get("blocks.0.attn.weight", ())
    patch_size = _patch_size(shapes)
    if not patch_size or len(table) != 3 and len(mixture) != 2:
        return None
    slots = 0 if _patches_alone(shapes) else ("cls_token" in shapes) + ("dist_token" in shapes)
    patches = table[1] - slots if table else mixture[0]
    grid = math.isqrt(max(patches, 0))
    return grid * patch_size if grid and grid * grid == patches else None


def _patch_size(shapes: Shapes) -> int | None:
    projection = shapes.get("patch_embed.proj.weight", ())
    if len(projection) == 4:
        return projection[-1]
    return 16 if "patch_embed.proj.6.weight" in shapes else None  # the hMLP stem's


def head_classes(shapes: Shapes) -> int | None:
    """The head's width, or the number of heads of one class; None where the weights hold no head."""
    for name in ("head.weight", "head.bias", "head_dist.weight", "head.fc.weight", "head.fc.bias"):
        if name in shapes:
            return shapes[name][0]
    return _count(shapes, r"head\.(\d+)\.") or None
