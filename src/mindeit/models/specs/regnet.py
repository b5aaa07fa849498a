"""RegNetY: the teacher of the distilled models."""

from __future__ import annotations

from typing import Any

from mindeit.models.spec import ModelSpec, Published
from mindeit.models.specs.shapes import Shapes, count_numbered

# The teacher of the distilled models; its top-1 is the DeiT paper's (table 2).
TEACHER = ModelSpec(
    name="regnety_160",
    family="regnet",
    image_size=224,
    crop_pct=0.875,
    variant={"widths": (224, 448, 1232, 3024), "depths": (2, 4, 11, 1), "group_width": 112},
    published=Published("regnety_160-a5fe301d.pth", 82.9, None, 83.6, 15.9),
)

MINI = ModelSpec(
    name="regnety_mini_32",
    family="regnet",
    image_size=32,
    crop_pct=1.0,
    variant={"widths": (24, 48, 96, 192), "depths": (1, 1, 1, 1), "group_width": 24},
    counted=(0.39, 0.002),
)
SPECS = (TEACHER, MINI)


def traits(shapes: Shapes) -> dict[str, Any]:
    stages = range(1, 1 + count_numbered(shapes, r"s(\d+)\.b1\.", first=1))
    last = [shapes.get(f"s{stage}.b1.conv3.conv.weight", ()) for stage in stages]
    grouped = shapes.get("s1.b1.conv2.conv.weight", ())
    if not last or not all(last) or len(grouped) != 4:
        return {}
    depths = tuple(count_numbered(shapes, rf"s{stage}\.b(\d+)\.", first=1) for stage in stages)
    return {"widths": tuple(shape[0] for shape in last), "depths": depths, "group_width": grouped[1]}
