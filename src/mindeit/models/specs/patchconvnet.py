"""PatchConvnet: accuracies of README_patchconvnet.md, and files of its code."""

from __future__ import annotations

from typing import Any

from mindeit.models.spec import ModelSpec, Published
from mindeit.models.specs.shapes import Shapes, count_blocks

# width, depth, start of LayerScale, a token for each class; parameters (M), GFLOPs
MODELS = {
    "S60": (384, 60, 1e-4, False, 25.2, 4.0),
    "S120": (384, 120, 1e-6, False, 47.7, 7.5),
    "B60": (768, 60, 1e-6, False, 99.4, 15.8),
    "B120": (768, 120, 1e-6, False, 188.6, 29.9),
    "L60": (1024, 60, 1e-6, False, 176.0, 28.1),
    "L120": (1024, 120, 1e-6, False, 334.3, 53.0),
    "S60_multi": (384, 60, 1e-4, True, 25.6, 5.3),
}
# file, top-1, GFLOPs, resolution, trained on
FILES = {
    "S60": (
        ("s60_224_1k", 82.1, 4.0, 224, "1k"),
        ("s60_224_21k", 83.5, 4.0, 224, "21k"),
        ("s60_384_21k", 84.9, 11.8, 384, "21k"),
        ("s60_512_21k", 85.4, 20.9, 512, "21k"),
    ),
    "S120": (("s120_224_1k", 83.2, 7.5, 224, "1k"),),
    "B60": (
        ("b60_224_1k", 83.5, 15.8, 224, "1k"),
        ("b60_224_21k", 85.4, 15.8, 224, "21k"),
        ("b60_384_21k", 86.5, 46.5, 384, "21k"),
    ),
    "B120": (
        ("b120_224_1k", 84.1, 29.9, 224, "1k"),
        ("b120_224_21k", 86.0, 29.8, 224, "21k"),
        ("b120_384_21k", 86.9, 87.7, 384, "21k"),
    ),
    "S60_multi": (
        ("s60_multi_finetune_1k", 82.0, 5.3, 224, "1k from S60"),
        ("s60_multi_scratch_1k", 81.1, 5.3, 224, "1k"),
    ),
}


def _official(name: str) -> ModelSpec:
    embed_dim, depth, init_scale, token_per_class, params, gflops = MODELS[name]
    published = [
        Published(f"{file}.pth", top1, None, params, gflops, image_size, trained_on)
        for file, top1, gflops, image_size, trained_on in FILES.get(name, ())
    ]
    return ModelSpec(
        name=name,
        family="patchconvnet",
        image_size=224,
        crop_pct=0.875,
        variant={"embed_dim": embed_dim, "depth": depth, "init_scale": init_scale, "token_per_class": token_per_class},
        published=published[0] if published else None,
        more=tuple(published[1:]),
        counted=(params, gflops),
    )


MINI = ModelSpec(
    name="patchconvnet_mini_32",
    family="patchconvnet",
    image_size=32,
    crop_pct=1.0,
    variant={"embed_dim": 128, "depth": 6, "init_scale": 0.1, "token_per_class": False},
    counted=(0.65, 0.002),
)
SPECS = (*(_official(name) for name in MODELS), MINI)


def traits(shapes: Shapes) -> dict[str, Any]:
    convolution = shapes.get("blocks.0.attn.qkv_pos.0.weight", ())
    if len(convolution) != 4:
        return {}
    return {
        "embed_dim": convolution[0],
        "depth": count_blocks(shapes),
        "token_per_class": "head.0.weight" in shapes or shapes.get("cls_token", (1, 1))[1] > 1,
    }
