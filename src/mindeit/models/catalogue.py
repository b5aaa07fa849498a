"""The table of all models: shape, native resolution, and what the authors published. Importing it costs nothing.

Accuracies and files are those of facebookresearch/deit (README_deit.md); GFLOPs count multiply-adds, as the papers do.
"""

from __future__ import annotations

from mindeit.models.spec import ModelSpec, Published
from mindeit.models.zoo import ZOO

# width, depth, heads
DEIT_SHAPES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}

# size, distilled, resolution: published file, top-1, top-5, parameters (M), GFLOPs
DEIT_MODELS = {
    ("tiny", False, 224): ("deit_tiny_patch16_224-a1311bcf.pth", 72.20, 91.1, 5.7, 1.26),
    ("small", False, 224): ("deit_small_patch16_224-cd65a155.pth", 79.85, 95.0, 22.1, 4.61),
    ("base", False, 224): ("deit_base_patch16_224-b5f2ef4d.pth", 81.85, 95.6, 86.6, 17.6),
    ("tiny", True, 224): ("deit_tiny_distilled_patch16_224-b40b3cf7.pth", 74.48, 91.9, 5.9, 1.27),
    ("small", True, 224): ("deit_small_distilled_patch16_224-649709d9.pth", 81.16, 95.4, 22.4, 4.63),
    ("base", True, 224): ("deit_base_distilled_patch16_224-df68dfff.pth", 83.37, 96.5, 87.3, 17.7),
    ("base", False, 384): ("deit_base_patch16_384-8de9b5d1.pth", 82.89, 96.2, 86.9, 55.5),
    ("base", True, 384): ("deit_base_distilled_patch16_384-d0272ac0.pth", 85.22, 97.2, 87.6, 55.7),
}


def _deit(size: str, distilled: bool, image_size: int) -> ModelSpec:
    embed_dim, depth, num_heads = DEIT_SHAPES[size]
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
        published=Published(
            *DEIT_MODELS[size, distilled, image_size], trained_on="1k distilled" if distilled else "1k"
        ),
    )


# The teacher of the distilled models; its top-1 is the DeiT paper's (table 2).
REGNETY_160 = ModelSpec(
    name="regnety_160",
    family="regnet",
    image_size=224,
    crop_pct=0.875,
    variant={"widths": (224, 448, 1232, 3024), "depths": (2, 4, 11, 1), "group_width": 112},
    published=Published("regnety_160-a5fe301d.pth", 82.9, None, 83.6, 15.9),
)

# Of this project, not of the papers: a model of each family for images of 32 pixels, trained in minutes.
MINI_MODELS = {
    "deit_mini_distilled_patch8_32": (
        "deit",
        {"embed_dim": 128, "depth": 2, "num_heads": 4, "patch_size": 8, "distilled": True},
        (0.68, 0.008),
    ),
    "deit_mini_patch8_32_LS": (
        "deit3",
        {
            "embed_dim": 128,
            "depth": 4,
            "num_heads": 4,
            "patch_size": 8,
            "parallel": False,
            "init_scale": 1e-4,
            "hmlp_stem": False,
        },
        (0.95, 0.014),
    ),
    "cait_mini_patch8_32": (
        "cait",
        {"embed_dim": 128, "depth": 3, "num_heads": 4, "patch_size": 8, "init_scale": 0.1},
        (1.15, 0.012),
    ),
    "resmlp_mini_patch8_32": (
        "resmlp",
        {"embed_dim": 128, "depth": 4, "patch_size": 8, "init_scale": 0.1},
        (0.68, 0.009),
    ),
    "patchconvnet_mini_32": (
        "patchconvnet",
        {"embed_dim": 128, "depth": 6, "init_scale": 0.1, "token_per_class": False},
        (0.65, 0.002),
    ),
    "regnety_mini_32": (
        "regnet",
        {"widths": (24, 48, 96, 192), "depths": (1, 1, 1, 1), "group_width": 24},
        (0.39, 0.002),
    ),
}


def _mini(name: str) -> ModelSpec:
    family, variant, counted = MINI_MODELS[name]
    return ModelSpec(name=name, family=family, image_size=32, crop_pct=1.0, variant=variant, counted=counted)


_ROWS = (*(_deit(*key) for key in DEIT_MODELS), REGNETY_160, *ZOO, *(_mini(name) for name in MINI_MODELS))
CATALOGUE = {row.name: row for row in _ROWS}
