"""The results of an evaluation: lines on the screen, and a JSON file with every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mindeit.training.evaluate import Evaluation
from mindeit.weights.card import ModelCard

if TYPE_CHECKING:
    from mindeit.training.details import Details


def lines(result: Evaluation, skipped: Sequence[str], data_wait: float, details: Details | None = None) -> list[str]:
    """The last line is the official code's; what was left out, the speed and a line of details come before it."""
    left_out = [f"left out, unreadable ({len(skipped)}):", *(f"  {path}" for path in skipped)] if skipped else []
    rate = f"{result.images} images in {result.seconds:.1f} s, {result.images_per_second:.1f} images/s"
    rate += f", {data_wait:.0%} of the time waiting for data"
    return [*left_out, rate, *([details.line()] if details else []), str(result)]


def as_json(
    result: Evaluation,
    card: ModelCard,
    names: Sequence[str],
    skipped: Sequence[str],
    data_wait: float,
    tta: str | None = None,
) -> dict[str, Any]:
    """Accuracies in percent; a class without images has accuracy null."""
    classes = zip(names, result.counts.tolist(), result.top1_hits.tolist(), result.topk_hits.tolist())
    return {
        "model": card.model,
        "image_size": card.image_size,
        "crop_pct": card.crop_pct,
        "tta": tta,
        "images": result.images,
        "acc1": result.top1,
        f"acc{result.k}": result.topk,
        "loss": result.loss,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "data_wait": data_wait,
        "skipped": list(skipped),
        "classes": [
            {
                "name": name,
                "images": count,
                "acc1": 100 * top1 / count if count else None,
                f"acc{result.k}": 100 * topk / count if count else None,
            }
            for name, count, top1, topk in classes
        ],
    }
