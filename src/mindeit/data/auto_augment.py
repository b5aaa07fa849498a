"""RandAugment and AutoAugment: which operations, how likely and how strong (timm 0.3.2's rules and tables)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from mindeit.data.augment_ops import WarpStyle, apply_op, strength
from mindeit.data.sampler import pick
from mindeit.errors import UserError

Augment = Callable[[Image.Image, np.random.Generator], Image.Image]

_SET = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
_HAS_INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
RAND_AUGMENT_OPS = _SET
INCREASING_OPS = tuple(name + "Increasing" if name in _HAS_INCREASING else name for name in _SET)
_OP_PROBABILITY = 0.5
_ALLOWED = "allowed: rand-m9-mstd0.5-inc1 (m 0..10, n layers, mstd, inc 0 or 1), original, v0, 3-augment, none"


class Step(NamedTuple):
    name: str
    probability: float
    magnitude: float


def _policy(text: str) -> tuple[tuple[Step, ...], ...]:
    """Lines of ``operation probability magnitude, operation probability magnitude``."""

    def step(words: str) -> Step:
        name, probability, magnitude = words.split()
        return Step(name, float(probability), float(magnitude))

    return tuple(tuple(step(part) for part in line.split(",")) for line in text.strip().splitlines())


POLICIES = {
    "original": _policy("""
        PosterizeOriginal 0.4 8, Rotate 0.6 9
        Solarize 0.6 5, AutoContrast 0.6 5
        Equalize 0.8 8, Equalize 0.6 3
        PosterizeOriginal 0.6 7, PosterizeOriginal 0.6 6
        Equalize 0.4 7, Solarize 0.2 4
        Equalize 0.4 4, Rotate 0.8 8
        Solarize 0.6 3, Equalize 0.6 7
        PosterizeOriginal 0.8 5, Equalize 1.0 2
        Rotate 0.2 3, Solarize 0.6 8
        Equalize 0.6 8, PosterizeOriginal 0.4 6
        Rotate 0.8 8, Color 0.4 0
        Rotate 0.4 9, Equalize 0.6 2
        Equalize 0.0 7, Equalize 0.8 8
        Invert 0.6 4, Equalize 1.0 8
        Color 0.6 4, Contrast 1.0 8
        Rotate 0.8 8, Color 1.0 2
        Color 0.8 8, Solarize 0.8 7
        Sharpness 0.4 7, Invert 0.6 8
        ShearX 0.6 5, Equalize 1.0 9
        Color 0.4 0, Equalize 0.6 3
        Equalize 0.4 7, Solarize 0.2 4
        Solarize 0.6 5, AutoContrast 0.6 5
        Invert 0.6 4, Equalize 1.0 8
        Color 0.6 4, Contrast 1.0 8
        Equalize 0.8 8, Equalize 0.6 3"""),
    "v0": _policy("""
        Equalize 0.8 1, ShearY 0.8 4
        Color 0.4 9, Equalize 0.6 3
        Color 0.4 1, Rotate 0.6 8
        Solarize 0.8 3, Equalize 0.4 7
        Solarize 0.4 2, Solarize 0.6 2
        Color 0.2 0, Equalize 0.8 8
        Equalize 0.4 8, SolarizeAdd 0.8 3
        ShearX 0.2 9, Rotate 0.6 8
        Color 0.6 1, Equalize 1.0 2
        Invert 0.4 9, Rotate 0.6 0
        Equalize 1.0 9, ShearY 0.6 3
        Color 0.4 7, Equalize 0.6 0
        Posterize 0.4 6, AutoContrast 0.4 7
        Solarize 0.6 8, Color 0.6 9
        Solarize 0.2 4, Rotate 0.8 9
        Rotate 1.0 7, TranslateYRel 0.8 9
        ShearX 0.0 0, Solarize 0.8 4
        ShearY 0.8 0, Color 0.6 4
        Color 1.0 0, Rotate 0.6 2
        Equalize 0.8 4, Equalize 0.0 8
        Equalize 1.0 4, AutoContrast 0.6 2
        ShearY 0.4 7, SolarizeAdd 0.6 7
        Posterize 0.8 2, Solarize 0.6 10
        Solarize 0.6 8, Equalize 0.6 1
        Color 0.8 6, Rotate 0.4 5"""),
}


class AutoAugment:
    """Applies one of ``choose``'s lists of steps; each step with its probability, noisy magnitude and random sign.

    resamples: filters to draw from for operations that move pixels (one for a fixed filter).
    """

    def __init__(
        self,
        choose: Callable[[np.random.Generator], tuple[Step, ...]],
        magnitude_std: float,
        resamples: tuple[Image.Resampling, ...],
        fill: tuple[int, ...],
    ) -> None:
        self._choose, self._magnitude_std = choose, magnitude_std
        self._styles = tuple(WarpStyle(resample, fill) for resample in resamples)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for name, args, style in self.draw(rng):
            image = apply_op(name, args, image, style)
        return image

    def draw(self, rng: np.random.Generator) -> list[tuple[str, tuple, WarpStyle]]:
        """The operations to apply: (name, arguments, style)."""
        drawn = []
        for step in self._choose(rng):
            if rng.random() >= step.probability:
                continue
            magnitude = rng.normal(step.magnitude, self._magnitude_std) if self._magnitude_std else step.magnitude
            sign = -1 if rng.random() < 0.5 else 1
            drawn.append((step.name, strength(step.name, magnitude, sign), self._styles[pick(rng, len(self._styles))]))
        return drawn


class _RandomSteps:
    """RandAugment's choice: ``layers`` operations of a set, drawn with replacement. A class, so that it pickles."""

    def __init__(self, names: tuple[str, ...], layers: int, magnitude: float) -> None:
        self._steps = tuple(Step(name, _OP_PROBABILITY, magnitude) for name in names)
        self._layers = layers

    def __call__(self, rng: np.random.Generator) -> tuple[Step, ...]:
        return tuple(self._steps[rng.integers(len(self._steps))] for _ in range(self._layers))


class _RandomPair:
    """AutoAugment's choice: one pair of the policy."""

    def __init__(self, policy: tuple[tuple[Step, ...], ...]) -> None:
        self._policy = policy

    def __call__(self, rng: np.random.Generator) -> tuple[Step, ...]:
        return self._policy[pick(rng, len(self._policy))]


def auto_augment(spec: str, resamples: tuple[Image.Resampling, ...], fill: tuple[int, ...]) -> AutoAugment:
    """``rand-m9-mstd0.5-inc1``, ``original`` or ``v0``; MindCV's ``randaug-...`` and ``autoaug`` are the first two."""
    kind, *sections = spec.split("-")
    kind = "original" if kind == "autoaug" else kind
    if kind in POLICIES:
        values = _sections(spec, sections, {"mstd": 0.0})
        return AutoAugment(_RandomPair(POLICIES[kind]), values["mstd"], resamples, fill)
    if kind not in ("rand", "randaug"):
        raise UserError(f"auto_augment is '{spec}'; {_ALLOWED}")
    values = _sections(spec, sections, {"m": 10.0, "n": 2, "mstd": 0.0, "inc": 0})
    if not 0 <= values["m"] <= 10 or values["n"] < 1 or values["mstd"] < 0 or values["inc"] not in (0, 1):
        raise UserError(f"auto_augment is '{spec}'; {_ALLOWED}")
    names = INCREASING_OPS if values["inc"] else RAND_AUGMENT_OPS
    return AutoAugment(_RandomSteps(names, int(values["n"]), values["m"]), values["mstd"], resamples, fill)


def _sections(spec: str, sections: list[str], defaults: dict[str, float]) -> dict[str, float]:
    values = dict(defaults)
    for section in sections:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", section)
        if match is None or match[1] not in defaults:
            raise UserError(f"auto_augment is '{spec}': '{section}' is not understood; {_ALLOWED}")
        values[match[1]] = float(match[2])
    return values
