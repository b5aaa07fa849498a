"""The work of ``convert_pt2ms.py``: converts a file of weights, and checks it if asked to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindeit.convert import parity
from mindeit.convert.model_card import model_card
from mindeit.files import atomic, atomic_group
from mindeit.weights import checkpoint, hub, timm_folder
from mindeit.weights.adapt import State
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
    to_timm: bool = False,
    verify: bool = False,
) -> None:
    """Write ``target`` and say so; `ParityMismatch`, and nothing is written, where ``verify`` finds a gap.

    `verify` checks the written file, read back, not the arrays in memory.
    """
    if to_timm and model is not None:
        timm_folder.timm_form(model)  # an error before a large file is read
    state, card = load_weights(
        source, model=model, num_classes=num_classes, image_size=image_size, use_ema=use_ema, check=not no_check
    )
    tensors = len(state) + (len(card.counters) if to_pt or to_timm else 0)
    if to_timm:
        size = _write_folder(source, target, state, card, verify, use_ema)
    else:
        with atomic(target) as temporary:
            if to_pt:
                write_official(temporary, to_official(state, card))
            else:
                checkpoint.write(temporary, state, card)
            if verify:
                _prove(temporary, card)
            size = temporary.stat().st_size
    print(
        f"wrote {target}: {card.model}, {tensors} tensors, {size / 1e6:.1f} MB, "
        f"{card.num_classes} classes, images of {card.image_size}"
    )


def _write_folder(source: str, target: str, state: State, card: ModelCard, verify: bool, use_ema: bool) -> int:
    """Returns the size of the weights in bytes."""
    timm_folder.timm_form(card.model)
    with _folder(target) as folder:
        timm_folder.write(folder, to_official(state, card), card)
        report = _prove(folder, card) if verify else None
        file = Path(hub.local_path(source))
        text = model_card(card, source=file, target=target, report=report, use_ema=use_ema)
        (folder / "README.md").write_text(text, encoding="utf-8")
        return hub.weights_in(folder).stat().st_size


@contextmanager
def _folder(target: str) -> Iterator[Path]:
    """A folder whose files move to ``target``, or are uploaded there, when the block ends well."""
    if hub.is_on_hub(target):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            hub.upload(Path(folder), target)
    else:
        with atomic_group(Path(target) / hub.CONFIG) as config:
            yield config.parent


def _prove(path: Path, card: ModelCard) -> parity.Report:
    headless = None if card.num_classes else 0  # an official file has no card to say so
    report = parity.verify(*load_weights(path, model=card.model, num_classes=headless, image_size=card.image_size))
    print(report, flush=True)
    if not report.ok:
        raise ParityMismatch
    return report
