"""DeiT III and 3Things: accuracies of README_revenge.md, and the files of the code where the tables have none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mindeit.models.spec import ModelSpec, Published
from mindeit.models.specs.shapes import Shapes, count_blocks, patch_size_of, patches_alone

# patch, width, depth, heads, two branches a block, LayerScale; parameters (M), GFLOPs
MODELS = {
    "deit_tiny_patch16_LS": (16, 192, 12, 3, False, True, 5.7, 1.26),
    "deit_small_patch16_LS": (16, 384, 12, 6, False, True, 22.1, 4.61),
    "deit_medium_patch16_LS": (16, 512, 12, 8, False, True, 38.8, 8.0),
    "deit_base_patch16_LS": (16, 768, 12, 12, False, True, 86.6, 17.6),
    "deit_large_patch16_LS": (16, 1024, 24, 16, False, True, 304.4, 61.6),
    "deit_huge_patch14_LS": (14, 1280, 32, 16, False, True, 632.1, 167.4),
    "deit_huge_patch14_52_LS": (14, 1280, 52, 16, False, True, 1025.7, 271.9),
    "deit_huge_patch14_26x2_LS": (14, 1280, 26, 16, True, True, 1025.7, 271.9),
    "deit_giant_40_patch14_LS": (14, 1408, 40, 16, False, True, 955.0, 252.4),
    "deit_giant_40x2_patch14_LS": (14, 1408, 40, 16, True, True, 1907.5, 504.5),
    "deit_Giant_48_patch14_LS": (14, 1664, 48, 16, False, True, 1599.2, 420.9),
    "deit_Giant_48x2_patch14_LS": (14, 1664, 48, 16, True, True, 3195.2, 841.5),
}
THREE_THINGS = {
    "deit_small_patch16_36_LS": (16, 384, 36, 6, False, True, 64.7, 13.7),
    "deit_small_patch16_36": (16, 384, 36, 6, False, False, 64.6, 13.7),
    "deit_small_patch16_18x2_LS": (16, 384, 18, 6, True, True, 64.7, 13.7),
    "deit_small_patch16_18x2": (16, 384, 18, 6, True, False, 64.6, 13.7),
    "deit_base_patch16_36x1_LS": (16, 768, 36, 12, False, True, 256.7, 52.5),
    "deit_base_patch16_36x1": (16, 768, 36, 12, False, False, 256.7, 52.5),
    "deit_base_patch16_18x2_LS": (16, 768, 18, 12, True, True, 256.7, 52.5),
    "deit_base_patch16_18x2": (16, 768, 18, 12, True, False, 256.7, 52.5),
}
# resolution, trained on: top-1, parameters (M), GFLOPs
FILES = {
    "deit_small_patch16_LS": {
        (224, "1k"): (81.4, 22.0, 4.6),
        (384, "1k"): (83.4, 22.0, 15.5),
        (224, "21k"): (83.1, 22.0, 4.6),
        (384, "21k"): (84.8, 22.0, 15.5),
    },
    "deit_medium_patch16_LS": {(224, "1k"): (83.0, 38.8, 8.0), (224, "21k"): (84.5, 38.8, 8.0)},
    "deit_base_patch16_LS": {
        (224, "1k"): (83.8, 86.6, 17.5),
        (384, "1k"): (85.0, 86.9, 55.5),
        (224, "21k"): (85.7, 86.6, 17.5),
        (384, "21k"): (86.7, 86.9, 55.5),
    },
    "deit_large_patch16_LS": {
        (224, "1k"): (84.9, 304.4, 61.6),
        (384, "1k"): (85.8, 304.8, 191.2),
        (224, "21k"): (87.0, 304.4, 61.6),
        (384, "21k"): (87.7, 304.8, 191.2),
    },
    "deit_huge_patch14_LS": {(224, "1k"): (85.2, 632.1, 167.4), (224, "21k"): (87.2, 632.1, 167.4)},
}


def _official(name: str) -> ModelSpec:
    row = MODELS.get(name) or THREE_THINGS[name]
    patch_size, embed_dim, depth, num_heads, parallel, scaled, params, gflops = row
    size, files = name.split("_")[1], FILES.get(name, {})
    published = [
        Published(
            "deit_3_huge_224_21k_v1.pth"
            if (size, trained_on) == ("huge", "21k")
            else f"deit_3_{size}_{image_size}_{trained_on}.pth",
            top1,
            None,
            params,
            gflops,
            image_size,
            trained_on,
        )
        for (image_size, trained_on), (top1, params, gflops) in files.items()
    ]
    return ModelSpec(
        name=name,
        family="deit3",
        image_size=224,
        crop_pct=1.0 if name in MODELS else 0.875,
        variant={
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": patch_size,
            "parallel": parallel,
            "init_scale": 1e-4 if scaled else None,
            "hmlp_stem": False,
        },
        published=published[0] if published else None,
        more=tuple(published[1:]),
        counted=(params, gflops),
    )


# With the stem of 3Things, an option of the official code that no official name has; parameters (M), GFLOPs
HMLP = {
    "deit_tiny_patch16_LS": (5.6, 1.25),
    "deit_small_patch16_LS": (22.0, 4.62),
    "deit_medium_patch16_LS": (38.8, 8.0),
    "deit_base_patch16_LS": (86.7, 17.7),
    "deit_large_patch16_LS": (304.9, 61.9),
}


def _with_hmlp_stem(name: str) -> ModelSpec:
    row, counted = _official(name), HMLP[name]
    return replace(
        row, name=f"{name}_hMLP", variant={**row.variant, "hmlp_stem": True}, published=None, more=(), counted=counted
    )


MINI = ModelSpec(
    name="deit_mini_patch8_32_LS",
    family="deit3",
    image_size=32,
    crop_pct=1.0,
    variant={
        "embed_dim": 128,
        "depth": 4,
        "num_heads": 4,
        "patch_size": 8,
        "parallel": False,
        "init_scale": 1e-4,
        "hmlp_stem": False,
    },
    counted=(0.95, 0.014),
)
SPECS = (*(_official(name) for name in (*MODELS, *THREE_THINGS)), *(_with_hmlp_stem(name) for name in HMLP), MINI)


def traits(shapes: Shapes) -> dict[str, Any]:
    table = shapes.get("pos_embed", ())
    if not patches_alone(shapes) or "blocks.0.attn.qkv.weight" not in shapes or "blocks.0.attn.proj_l.bias" in shapes:
        return {}
    return {
        "embed_dim": table[-1],
        "patch_size": patch_size_of(shapes),
        "depth": count_blocks(shapes),
        "parallel": "blocks.0.attn1.qkv.weight" in shapes,
        "hmlp_stem": "patch_embed.proj.0.weight" in shapes,
        "init_scale": 1e-4 if "blocks.0.gamma_1" in shapes else None,
    }
