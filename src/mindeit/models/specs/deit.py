"""DeiT: the table of README_deit.md of facebookresearch/deit."""

from __future__ import annotations

from typing import Any

from mindeit.models.spec import ModelSpec, Published
from mindeit.models.specs.shapes import Shapes, count_blocks, patches_alone

# width, depth, heads
SHAPES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}

# size, distilled, resolution: published file, top-1, top-5, parameters (M), GFLOPs
MODELS = {
    ("tiny", False, 224): ("deit_tiny_patch16_224-a1311bcf.pth", 72.20, 91.1, 5.7, 1.26),
    ("small", False, 224): ("deit_small_patch16_224-cd65a155.pth", 79.85, 95.0, 22.1, 4.61),
    ("base", False, 224): ("deit_base_patch16_224-b5f2ef4d.pth", 81.85, 95.6, 86.6, 17.6),
    ("tiny", True, 224): ("deit_tiny_distilled_patch16_224-b40b3cf7.pth", 74.48, 91.9, 5.9, 1.27),
    ("small", True, 224): ("deit_small_distilled_patch16_224-649709d9.pth", 81.16, 95.4, 22.4, 4.63),
    ("base", True, 224): ("deit_base_distilled_patch16_224-df68dfff.pth", 83.37, 96.5, 87.3, 17.7),
    ("base", False, 384): ("deit_base_patch16_384-8de9b5d1.pth", 82.89, 96.2, 86.9, 55.5),
    ("base", True, 384): ("deit_base_distilled_patch16_384-d0272ac0.pth", 85.22, 97.2, 87.6, 55.7),
}


def _official(size: str, distilled: bool, image_size: int) -> ModelSpec:
    embed_dim, depth, num_heads = SHAPES[size]
    return ModelSpec(
        name=f"deit_{size}_{'distilled_' if distilled else ''}patch16_{image_size}",
        family="deit",
        image_size=image_size,
        crop_pct=0.875,
        variant={
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": 16,
            "distilled": distilled,
        },
        published=Published(*MODELS[size, distilled, image_size], trained_on="1k distilled" if distilled else "1k"),
    )


MINI = ModelSpec(
    name="deit_mini_distilled_patch8_32",
    family="deit",
    image_size=32,
    crop_pct=1.0,
    variant={"embed_dim": 128, "depth": 2, "num_heads": 4, "patch_size": 8, "distilled": True},
    counted=(0.68, 0.008),
)
SPECS = (*(_official(*key) for key in MODELS), MINI)


def traits(shapes: Shapes) -> dict[str, Any]:
    """The number of heads leaves no trace in the shapes; the width implies it."""
    projection = shapes.get("patch_embed.proj.weight", ())
    foreign = patches_alone(shapes) or "blocks.0.gamma_1" in shapes
    if foreign or not {"cls_token", "pos_embed"} <= set(shapes) or len(projection) != 4:
        return {}
    return {
        "embed_dim": projection[0],
        "patch_size": projection[-1],
        "depth": count_blocks(shapes),
        "distilled": "dist_token" in shapes,
    }
