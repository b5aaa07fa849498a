"""Mixup, CutMix and label smoothing. The partner of sample i is sample B-1-i; an odd batch's middle one is its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mindeit.data.sampler import pick
from mindeit.errors import UserError, nearest

MODES = ("batch", "pair", "elem")
Box = tuple[int, int, int, int]  # top, bottom, left, right


class Mix(NamedTuple):
    """What happens to one sample: ``lam`` of itself and the rest of its partner, blended or (with a box) pasted."""

    lam: float = 1.0
    box: Box | None = None


def cutmix(lam: float, height: int, width: int, center_y: int, center_x: int) -> Mix:
    """The box whose area is about 1 - lam around the centre; lam becomes what the clipped box leaves."""
    share = math.sqrt(1.0 - lam)
    half_h, half_w = int(height * share) // 2, int(width * share) // 2
    top, bottom = max(center_y - half_h, 0), min(center_y + half_h, height)
    left, right = max(center_x - half_w, 0), min(center_x + half_w, width)
    return Mix(1.0 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def box_between(rng: np.random.Generator, shares: tuple[float, float], height: int, width: int) -> Mix:
    """A box inside the image, each side drawn between these shares of the image's; lam is what it leaves."""
    sides = []
    for length in (height, width):
        low, high = (int(length * share) for share in shares)
        side = low + pick(rng, max(1, high - low))
        start = pick(rng, length - side)
        sides.append((start, start + side))
    (top, bottom), (left, right) = sides
    return Mix(1.0 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def mix_images(images: np.ndarray, mixes: Sequence[Mix]) -> np.ndarray:
    """In place on (B, 3, H, W): pair by pair, so that both partners stay in the cache."""
    for first in range(len(images) // 2):
        second = len(images) - 1 - first
        original = images[first].copy()
        _mix_into(images[first], images[second], mixes[first])
        _mix_into(images[second], original, mixes[second])
    return images


def _mix_into(image: np.ndarray, partner: np.ndarray, mix: Mix) -> None:
    if mix.box is not None:
        top, bottom, left, right = mix.box
        image[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    elif mix.lam != 1.0:
        image *= np.float32(mix.lam)
        image += partner * np.float32(1.0 - mix.lam)


def mix_targets(labels: np.ndarray, num_classes: int, lams: Sequence[float], smoothing: float) -> np.ndarray:
    """Labels (B,) -> float32 (B, C): smoothed one-hot of each sample and its partner, weighed by lam."""
    off = smoothing / num_classes
    hot = np.full((len(labels), num_classes), off, np.float32)
    hot[np.arange(len(labels)), labels] = 1.0 - smoothing + off
    own = np.asarray(lams, np.float32)[:, None]
    rest = (1.0 - np.asarray(lams, np.float64)).astype(np.float32)[:, None]
    return hot * own + hot[::-1] * rest


class Mixing:
    """(images, labels, generator, epoch) -> (images, targets float32 (B, C)).

    mode: one draw for the ``batch``, each ``pair`` of partners, or each sample (``elem``). From ``off_epoch`` on (0:
    never) targets are smoothed but nothing is mixed. ``cutmix_minmax``: as timm's, in place of CutMix's alpha.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        cutmix_minmax: tuple[float, float] | None = None,
        probability: float = 1.0,
        switch_probability: float = 0.5,
        mode: str = "batch",
        smoothing: float = 0.1,
        off_epoch: int = 0,
    ) -> None:
        if mode not in MODES:
            raise UserError(f"mixup mode is '{mode}'; allowed: {', '.join(MODES)}{nearest(mode, MODES)}")
        for name, value, top in (
            ("mixup", mixup, math.inf),
            ("cutmix", cutmix, math.inf),
            ("smoothing", smoothing, 1),
            ("mixup probability", probability, 1),
            ("switch probability", switch_probability, 1),
        ):
            if not 0 <= value <= top:
                raise UserError(f"{name} is {value}; allowed: 0 and above" + (f", at most {top}" if top == 1 else ""))
        self.num_classes, self._smoothing, self._mode, self._off_epoch = num_classes, smoothing, mode, off_epoch
        self._alphas = (mixup, 1.0 if cutmix_minmax else cutmix)
        self._minmax, self._probability, self._switch = cutmix_minmax, probability, switch_probability

    @property
    def keeps_levels(self) -> bool:
        """Whether normalising may wait until later: CutMix moves pixels, mixup makes new values of them."""
        return not self._alphas[0]

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, epoch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        mixes = self.draw(rng, epoch, len(images), *images.shape[2:])
        return (
            mix_images(images, mixes),
            mix_targets(labels, self.num_classes, [mix.lam for mix in mixes], self._smoothing),
        )

    def draw(self, rng: np.random.Generator, epoch: int, batch: int, height: int, width: int) -> list[Mix]:
        """One `Mix` a sample."""
        if not any(self._alphas) or (self._off_epoch and epoch >= self._off_epoch):
            return [Mix()] * batch
        if self._mode == "batch":
            return [self._draw_one(rng, height, width)] * batch
        if self._mode == "elem":
            return [self._draw_one(rng, height, width) for _ in range(batch)]
        half = [self._draw_one(rng, height, width) for _ in range(batch // 2)]
        return half + [Mix()] * (batch % 2) + half[::-1]

    def _draw_one(self, rng: np.random.Generator, height: int, width: int) -> Mix:
        if rng.random() >= self._probability:
            return Mix()
        mixup_alpha, cutmix_alpha = self._alphas
        use_cutmix = rng.random() < self._switch if mixup_alpha and cutmix_alpha else bool(cutmix_alpha)
        alpha = cutmix_alpha if use_cutmix else mixup_alpha
        lam = float(rng.beta(alpha, alpha))
        if not use_cutmix or lam == 1.0:
            return Mix(lam)
        if self._minmax:
            return box_between(rng, self._minmax, height, width)
        return cutmix(lam, height, width, pick(rng, height), pick(rng, width))
