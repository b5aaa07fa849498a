"""The table of all models: shape, native resolution, and what the authors published. Importing it costs nothing.

Accuracies and files are those of facebookresearch/deit (README_deit.md); GFLOPs count multiply-adds, as the papers do.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

OFFICIAL_FILES = "https://dl.fbaipublicfiles.com/deit/"


@dataclass(frozen=True)
class Published:
    """An official weight file; its name ends in the first eight hex digits of its SHA-256."""

    file: str
    top1: float
    top5: Optional[float]
    params_m: float
    gflops: float

    @property
    def url(self) -> str:
        return OFFICIAL_FILES + self.file


@dataclass(frozen=True)
class ModelSpec:
    """One model: ``variant`` holds the keyword arguments of the family's cell."""

    name: str
    family: str
    image_size: int
    crop_pct: float
    variant: Mapping[str, Any]
    published: Optional[Published] = None

    @property
    def distilled(self) -> bool:
        return bool(self.variant.get("distilled", False))


# width, depth, heads
DEIT_SHAPES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
}

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
            "embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "patch_size": 16, "distilled": distilled
        },
        published=Published(*DEIT_MODELS[size, distilled, image_size]),
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

# Of this project, not of the papers: a distilled DeiT and a RegNetY for pictures of 32 pixels, trained in minutes.
DEIT_MINI = ModelSpec(
    name="deit_mini_distilled_patch8_32",
    family="deit",
    image_size=32,
    crop_pct=1.0,
    variant={"embed_dim": 128, "depth": 2, "num_heads": 4, "patch_size": 8, "distilled": True},
)
REGNETY_MINI = ModelSpec(
    name="regnety_mini_32",
    family="regnet",
    image_size=32,
    crop_pct=1.0,
    variant={"widths": (24, 48, 96, 192), "depths": (1, 1, 1, 1), "group_width": 24},
)

CATALOGUE = {spec.name: spec for spec in (*(_deit(*key) for key in DEIT_MODELS), REGNETY_160, DEIT_MINI, REGNETY_MINI)}
