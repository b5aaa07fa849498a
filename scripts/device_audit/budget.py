"""How much a step may launch, copy and wait: what exceeds it fails the audit as an error does."""

from __future__ import annotations

from typing import Any

# What a network of any depth has to keep to.
GENERAL = {"GPU": {"d2h_bytes": 1024, "synchronisations": 1, "collectives": 4}, "Ascend": {"collectives": 4}}
COPIED_PER_IMAGE_BYTE = 1.1
# Launches grow with the depth: these hold for DeiT-B's twelve blocks.
OF_RECIPES = {("deit_b", "GPU"): {"launches": 1300}, ("deit_b", "Ascend"): {"kernels": 2000}}


def exceeded(recipe: str, device: str, numbers: dict[str, Any]) -> list[str]:
    limits = {**GENERAL.get(device, {}), **OF_RECIPES.get((recipe, device), {})}
    over = [f"{name} {numbers[name]:,} > {most:,}" for name, most in limits.items() if numbers.get(name, 0) > most]
    ratio = numbers["h2d_bytes"] / numbers["image_bytes"] if "image_bytes" in numbers else 0
    if ratio > COPIED_PER_IMAGE_BYTE:
        over.append(f"h2d_bytes {ratio:.2f} x images > {COPIED_PER_IMAGE_BYTE}")
    return over
