"""Predictions for many images: lines on the screen, attention maps in a folder, and entries for a JSON file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mindeit.errors import UserError
from mindeit.predict import attention_maps
from mindeit.predict.predictor import Prediction, Predictor


def describe(
    predictor: Predictor,
    images: Sequence[str],
    *,
    top_k: int,
    attention: str | None,
    attention_style: str,
    skip_bad_images: bool,
) -> list[dict[str, Any]]:
    """One entry an image. An unreadable image is an error, or is skipped and named with ``skip_bad_images``."""
    if attention:
        predictor.check_attention()
    if predictor.temperature:
        print(f"scores are calibrated, by temperature {predictor.temperature:.4g}")
    results, skipped = list[dict[str, Any]](), 0
    maps = attention_maps.file_names(images, attention) if attention else [None] * len(images)
    for image, png in zip(images, maps):
        try:
            pixels = predictor.pixels(image)
        except UserError as error:
            if not skip_bad_images:
                raise
            print(f"left out: {error}", file=sys.stderr)
            skipped += 1
            continue
        best = predictor.best(predictor.logits(pixels[None])[0], top_k)
        print("\n".join([image, *(_line(guess) for guess in best)]), flush=True)
        entry: dict[str, Any] = {"image": image, "predictions": [asdict(guess) for guess in best]}
        if predictor.temperature:
            entry["temperature"] = predictor.temperature
        if png:
            entry["attention"] = png
            draw_attention(predictor, pixels, Path(png), best[0], attention_style)
            print(f"  attention: {png}", flush=True)
        results.append(entry)
    if skipped:
        print(f"{skipped} of {len(images)} images were left out", file=sys.stderr)
    return results


def draw_attention(predictor: Predictor, pixels: np.ndarray, path: Path, best: Prediction, style: str = "grid") -> None:
    """``style`` overlay: the image and one map; grid: the mean of the last block's heads and each of them as well."""
    from mindeit.predict import attention_figure  # matplotlib, which only these maps need

    ((rollout, heads),) = predictor.attention_maps(pixels[None], [best.label])
    alone = len(heads) == 1
    maps = {"rollout": rollout, "mean of heads": heads.mean(0)}
    if alone:
        maps = {"class attention": heads[0]}
    if style == "overlay":
        maps = dict([next(iter(maps.items()))])
    image = attention_maps.unnormalised(pixels, predictor.card.mean, predictor.card.std)
    shown = [] if alone or style == "overlay" else list(heads)
    attention_figure.draw(path, image, maps, shown, f"{best.name}, {100 * best.score:.1f} %")


def _line(guess: Prediction) -> str:
    return f"  {guess.score:7.2%}  {guess.name} ({guess.label})"
