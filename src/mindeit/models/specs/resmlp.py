"""ResMLP: accuracies of README_resmlp.md, and files of its code."""

from __future__ import annotations

from typing import Any

from mindeit.models.spec import ModelSpec, Published
from mindeit.models.specs.shapes import Shapes, count_blocks

# patch, width, depth, start of LayerScale; parameters (M), GFLOPs; top-1 by file
# The authors' table has 116 M and 23 GFLOPs for resmlp_36, which its 44.7 M of weights contradict.
MODELS = {
    "resmlp_12": (16, 384, 12, 0.1, 15.4, 3.0, {"dist": 77.8, "no_dist": None, "dino": None}),
    "resmlp_24": (16, 384, 24, 1e-5, 30.0, 6.0, {"dist": 80.8, "no_dist": None, "dino": None}),
    "resmlp_36": (16, 384, 36, 1e-6, 44.7, 8.9, {"dist": 81.1, "no_dist": None}),
    "resmlpB_24": (8, 768, 24, 1e-6, 129.1, 100.2, {"dist": 83.6, "no_dist": None, "22k": 84.4}),
}
TRAINED_ON = {"dist": "1k distilled", "no_dist": "1k", "dino": "1k DINO", "22k": "22k"}


def _official(name: str) -> ModelSpec:
    patch_size, embed_dim, depth, init_scale, params, gflops, files = MODELS[name]
    first, *more = (
        Published(f"{name}_{kind}.pth", top1, None, params, gflops, trained_on=TRAINED_ON[kind])
        for kind, top1 in files.items()
    )
    return ModelSpec(
        name=name,
        family="resmlp",
        image_size=224,
        crop_pct=0.9,
        variant={"embed_dim": embed_dim, "depth": depth, "patch_size": patch_size, "init_scale": init_scale},
        published=first,
        more=tuple(more),
    )


MINI = ModelSpec(
    name="resmlp_mini_patch8_32",
    family="resmlp",
    image_size=32,
    crop_pct=1.0,
    variant={"embed_dim": 128, "depth": 4, "patch_size": 8, "init_scale": 0.1},
    counted=(0.68, 0.009),
)
SPECS = (*(_official(name) for name in MODELS), MINI)


def traits(shapes: Shapes) -> dict[str, Any]:
    projection = shapes.get("patch_embed.proj.weight", ())
    if "blocks.0.norm1.alpha" not in shapes or len(projection) != 4:
        return {}
    return {"embed_dim": projection[0], "patch_size": projection[-1], "depth": count_blocks(shapes)}
