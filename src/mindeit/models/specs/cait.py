"""CaiT: accuracies of README_cait.md, files and the smallest models of its code."""

from __future__ import annotations

from typing import Any

from mindeit.models.spec import ModelSpec, Published
from mindeit.models.specs.shapes import Shapes, count_blocks

# width, depth, heads, start of LayerScale, resolution; file, top-1 where the authors' table has it, parameters, GFLOPs
MODELS = {
    "cait_XXS24_224": (192, 24, 4, 1e-5, 224, "XXS24_224.pth", None, 12.0, 2.5),
    "cait_XXS24": (192, 24, 4, 1e-5, 384, "XXS24_384.pth", None, 12.0, 9.6),
    "cait_XXS36_224": (192, 36, 4, 1e-5, 224, "XXS36_224.pth", None, 17.3, 3.8),
    "cait_XXS36": (192, 36, 4, 1e-5, 384, "XXS36_384.pth", None, 17.4, 14.4),
    "cait_XS24": (288, 24, 6, 1e-5, 384, "XS24_384.pth", 84.1, 26.7, 19.3),
    "cait_S24_224": (384, 24, 8, 1e-5, 224, "S24_224.pth", 83.5, 46.9, 9.4),
    "cait_S24": (384, 24, 8, 1e-5, 384, "S24_384.pth", 85.1, 47.1, 32.2),
    "cait_S36": (384, 36, 8, 1e-6, 384, "S36_384.pth", 85.4, 68.4, 48.0),
    "cait_M36": (768, 36, 16, 1e-6, 384, "M36_384.pth", 86.1, 271.2, 173.3),
    "cait_M48": (768, 48, 16, 1e-6, 448, "M48_448.pth", 86.5, 356.5, 329.6),
}


def _official(name: str) -> ModelSpec:
    embed_dim, depth, num_heads, init_scale, image_size, file, top1, params, gflops = MODELS[name]
    return ModelSpec(
        name=name,
        family="cait",
        image_size=image_size,
        crop_pct=1.0,
        variant={
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": 16,
            "init_scale": init_scale,
        },
        published=Published(file, top1, None, params, gflops, trained_on="1k distilled"),
    )


MINI = ModelSpec(
    name="cait_mini_patch8_32",
    family="cait",
    image_size=32,
    crop_pct=1.0,
    variant={"embed_dim": 128, "depth": 3, "num_heads": 4, "patch_size": 8, "init_scale": 0.1},
    counted=(1.15, 0.012),
)
SPECS = (*(_official(name) for name in MODELS), MINI)


def traits(shapes: Shapes) -> dict[str, Any]:
    projection = shapes.get("patch_embed.proj.weight", ())
    if "blocks.0.attn.proj_l.weight" not in shapes or len(projection) != 4:
        return {}
    return {"embed_dim": projection[0], "patch_size": projection[-1], "depth": count_blocks(shapes)}
