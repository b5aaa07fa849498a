"""The work of ``convert_pt2ms.py``: converts a file of weights, and checks it if asked to."""

from __future__ import annotations

from pathlib import Path

from mindeit.convert import parity
from mindeit.files import atomic
from mindeit.weights import checkpoint
from mindeit.weights.card import ModelCard
from mindeit.weights.load import load_weights, to_official
from mindeit.weights.torch_files import write_official


class ParityMismatch(Exception):
    """PyTorch and MindSpore do not agree on the converted weights."""


def convert(
    source: str,
    target: str,
    *,
    model: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    use_ema: bool = False,
    no_check: bool = False,
    to_pt: bool = False,
    verify: bool = False,
) -> None:
    """Write ``target`` and say so; `ParityMismatch`, and nothing is written, where ``verify`` finds a gap.

    `verify` checks the written file, read back, not the arrays in memory.
    """
    state, card = load_weights(
        source, model=model, num_classes=num_classes, image_size=image_size, use_ema=use_ema, check=not no_check
    )
    with atomic(target) as temporary:
        if to_pt:
            write_official(temporary, to_official(state, card))
        else:
            checkpoint.write(temporary, state, card)
        if verify:
            _prove(temporary, card)
        size = temporary.stat().st_size
    tensors = len(state) + (len(card.counters) if to_pt else 0)
    print(
        f"wrote {target}: {card.model}, {tensors} tensors, {size / 1e6:.1f} MB, "
        f"{card.num_classes} classes, images of {card.image_size}"
    )


def _prove(path: Path, card: ModelCard) -> None:
    headless = None if card.num_classes else 0  # an official file has no card to say so
    report = parity.verify(*load_weights(path, model=card.model, num_classes=headless, image_size=card.image_size))
    print(report, flush=True)
    if not report.ok:
        raise ParityMismatch
