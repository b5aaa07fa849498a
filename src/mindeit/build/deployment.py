"""From the options of export.py to a file."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Optional

from mindeit.errors import UserError


def deployment(door: Any) -> bool:
    """Whether the file was written."""
    from mindeit.deploy.export import SUFFIXES, Different, check_target, export
    from mindeit.deploy.metadata import Description

    source, batch = _weights(door), _batch(door)
    target = door.output or str(Path(door.ckpt_path or door.model).with_suffix(SUFFIXES[door.format]))
    check_target(target, door.format)
    from mindeit.convert.load import load_model
    from mindeit.runtime import device
    from mindeit.runtime.memory import check_fits

    device.setup("Ascend" if door.format == "AIR" else "CPU")  # a traced graph runs anywhere
    if door.pretrained:
        from mindeit.convert.pretrained import fetch_pretrained

        source = str(fetch_pretrained(door.model))
    model, card = load_model(
        source, model=door.model, num_classes=door.num_classes, image_size=door.image_size, use_ema=door.use_ema,
        check=not door.no_check,
    )
    if batch is not None:
        check_fits(4 * 3 * card.image_size**2 * batch, f"--batch is {batch}: a batch of images of {card.image_size} "
                   "pixels")
    description = Description(card, batch, door.heads, door.precision, door.preprocess)
    try:
        export(model, description, target, door.format)
    except Different as error:
        print(f"nothing was written to {target}: {error}", file=sys.stderr)
        return False
    return True


def _batch(door: Any) -> Optional[int]:
    """None: any batch."""
    from mindeit.deploy.metadata import DYNAMIC

    text = door.batch.lower()
    if text != DYNAMIC and not (text.isdecimal() and int(text)):
        raise UserError(f"command line: --batch is '{door.batch}', allowed: a whole number, at least 1, or {DYNAMIC}")
    if text == DYNAMIC and door.format == "AIR":
        raise UserError("command line: --format AIR needs --batch N")
    return None if text == DYNAMIC else int(text)


def _weights(door: Any) -> str:
    """The path; '' for official weights. Ascend's tools are looked for before any work."""
    from mindeit.runtime import device

    missing = device.missing_libraries("Ascend") if door.format == "AIR" else []
    if missing:
        raise UserError(f"format AIR needs Ascend's toolkit, missing {', '.join(missing)}; allowed here: MINDIR, ONNX")
    if door.pretrained and (door.ckpt_path or not door.model):
        raise UserError("--pretrained needs --model NAME, and no --ckpt_path")
    if not door.pretrained and not door.ckpt_path:
        raise UserError("no weights: give --ckpt_path FILE, or --pretrained True --model NAME for the official ones")
    return door.ckpt_path or ""
