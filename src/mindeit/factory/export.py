"""The work of export.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mindeit.errors import UserError
from mindeit.export.metadata import DYNAMIC, Description
from mindeit.export.writer import SUFFIXES, ExportMismatch, check_target, export
from mindeit.runtime import device
from mindeit.runtime.memory import check_fits
from mindeit.weights.load import load_model
from mindeit.weights.source import weights_file


def export_model(options: Any) -> bool:
    """Export after all checks; False if nothing was written."""
    _check_weights(options)
    batch = _batch(options)
    target = options.output or str(Path(options.ckpt_path or options.model).with_suffix(SUFFIXES[options.format]))
    check_target(target, options.format)
    path = weights_file(options.ckpt_path, pretrained=options.pretrained, model=options.model)
    assert path is not None  # `_check_weights`
    device.setup("Ascend" if options.format == "AIR" else "CPU")  # a traced graph runs anywhere
    model, card = load_model(
        path,
        model=options.model,
        num_classes=options.num_classes,
        image_size=options.image_size,
        use_ema=options.use_ema,
        check=not options.no_check,
    )
    if batch is not None:
        size = card.image_size
        check_fits(4 * 3 * size**2 * batch, f"--batch is {batch}: a batch of images of {size} pixels")
    description = Description(card, batch, options.heads, options.precision, options.preprocess)
    try:
        export(model, description, target, options.format)
    except ExportMismatch as error:
        print(f"nothing was written to {target}: {error}", file=sys.stderr)
        return False
    return True


def _batch(options: Any) -> int | None:
    """None: any batch."""
    text = options.batch.lower()
    if text != DYNAMIC and not (text.isdecimal() and int(text)):
        raise UserError(
            f"command line: --batch is '{options.batch}', allowed: a whole number, at least 1, or {DYNAMIC}"
        )
    if text == DYNAMIC and options.format == "AIR":
        raise UserError("command line: --format AIR needs --batch N")
    return None if text == DYNAMIC else int(text)


def _check_weights(options: Any) -> None:
    missing = device.missing_libraries("Ascend") if options.format == "AIR" else []
    if missing:
        raise UserError(f"format AIR needs Ascend's toolkit, missing {', '.join(missing)}; allowed here: MINDIR, ONNX")
    if options.pretrained and (options.ckpt_path or not options.model):
        raise UserError("--pretrained needs --model NAME, and no --ckpt_path")
    if not options.pretrained and not options.ckpt_path:
        raise UserError("no weights: give --ckpt_path FILE, or --pretrained True --model NAME for the official ones")
