"""The tables of DeiT III and 3Things, CaiT, ResMLP and PatchConvnet.

Accuracies are those of facebookresearch/deit (README_*.md), its files those of its code where the tables have none.
Parameters and GFLOPs of models without a file are counted (``mindeit.summary``).
"""

from __future__ import annotations

from dataclasses import replace

from mindeit.models.spec import ModelSpec, Published

# patch, width, depth, heads, two branches a block, LayerScale; parameters (M), GFLOPs
DEIT3_MODELS = {
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
THREE_THINGS_MODELS = {
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
DEIT3_FILES = {
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


def _deit3(name: str) -> ModelSpec:
    row = DEIT3_MODELS.get(name) or THREE_THINGS_MODELS[name]
    patch_size, embed_dim, depth, num_heads, parallel, scaled, *counted = row
    size, files = name.split("_")[1], DEIT3_FILES.get(name, {})
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
        crop_pct=1.0 if name in DEIT3_MODELS else 0.875,
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
        counted=tuple(counted),
    )


# With the stem of 3Things, an option of the official code that no official name has; parameters (M), GFLOPs
HMLP_MODELS = {
    "deit_tiny_patch16_LS": (5.6, 1.25),
    "deit_small_patch16_LS": (22.0, 4.62),
    "deit_medium_patch16_LS": (38.8, 8.0),
    "deit_base_patch16_LS": (86.7, 17.7),
    "deit_large_patch16_LS": (304.9, 61.9),
}


def _with_hmlp_stem(name: str) -> ModelSpec:
    row, counted = _deit3(name), HMLP_MODELS[name]
    return replace(
        row, name=f"{name}_hMLP", variant={**row.variant, "hmlp_stem": True}, published=None, more=(), counted=counted
    )


# width, depth, heads, start of LayerScale, resolution; file, top-1 where the authors' table has it, parameters, GFLOPs
CAIT_MODELS = {
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


def _cait(name: str) -> ModelSpec:
    embed_dim, depth, num_heads, init_scale, image_size, file, top1, params, gflops = CAIT_MODELS[name]
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


# patch, width, depth, start of LayerScale; parameters (M), GFLOPs; top-1 by file
# The authors' table has 116 M and 23 GFLOPs for resmlp_36, which its 44.7 M of weights contradict.
RESMLP_MODELS = {
    "resmlp_12": (16, 384, 12, 0.1, 15.4, 3.0, {"dist": 77.8, "no_dist": None, "dino": None}),
    "resmlp_24": (16, 384, 24, 1e-5, 30.0, 6.0, {"dist": 80.8, "no_dist": None, "dino": None}),
    "resmlp_36": (16, 384, 36, 1e-6, 44.7, 8.9, {"dist": 81.1, "no_dist": None}),
    "resmlpB_24": (8, 768, 24, 1e-6, 129.1, 100.2, {"dist": 83.6, "no_dist": None, "22k": 84.4}),
}
RESMLP_TRAINED_ON = {"dist": "1k distilled", "no_dist": "1k", "dino": "1k DINO", "22k": "22k"}


def _resmlp(name: str) -> ModelSpec:
    patch_size, embed_dim, depth, init_scale, params, gflops, files = RESMLP_MODELS[name]
    first, *more = (
        Published(f"{name}_{kind}.pth", top1, None, params, gflops, trained_on=RESMLP_TRAINED_ON[kind])
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


# width, depth, start of LayerScale, a token for each class; parameters (M), GFLOPs
PATCHCONVNET_MODELS = {
    "S60": (384, 60, 1e-4, False, 25.2, 4.0),
    "S120": (384, 120, 1e-6, False, 47.7, 7.5),
    "B60": (768, 60, 1e-6, False, 99.4, 15.8),
    "B120": (768, 120, 1e-6, False, 188.6, 29.9),
    "L60": (1024, 60, 1e-6, False, 176.0, 28.1),
    "L120": (1024, 120, 1e-6, False, 334.3, 53.0),
    "S60_multi": (384, 60, 1e-4, True, 25.6, 5.3),
}
# file, top-1, GFLOPs, resolution, trained on
PATCHCONVNET_FILES = {
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


def _patchconvnet(name: str) -> ModelSpec:
    embed_dim, depth, init_scale, token_per_class, *counted = PATCHCONVNET_MODELS[name]
    published = [
        Published(f"{file}.pth", top1, None, counted[0], gflops, image_size, trained_on)
        for file, top1, gflops, image_size, trained_on in PATCHCONVNET_FILES.get(name, ())
    ]
    return ModelSpec(
        name=name,
        family="patchconvnet",
        image_size=224,
        crop_pct=0.875,
        variant={"embed_dim": embed_dim, "depth": depth, "init_scale": init_scale, "token_per_class": token_per_class},
        published=published[0] if published else None,
        more=tuple(published[1:]),
        counted=tuple(counted),
    )


ZOO = (
    *(_deit3(name) for name in (*DEIT3_MODELS, *THREE_THINGS_MODELS)),
    *(_with_hmlp_stem(name) for name in HMLP_MODELS),
    *(_cait(name) for name in CAIT_MODELS),
    *(_resmlp(name) for name in RESMLP_MODELS),
    *(_patchconvnet(name) for name in PATCHCONVNET_MODELS),
)
