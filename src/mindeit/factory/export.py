"""The work of export.py."""

from __future__ import annotations

import sys
from typing import Any

from mindeit.export.metadata import Description
from mindeit.export.writer import ExportMismatch, export
from mindeit.runtime import device
from mindeit.runtime.memory import check_fits
from mindeit.weights.load import load_model
from mindeit.weights.source import weights_file


def export_model(options: Any, target: str, batch: int | None) -> bool:
    """Export after all checks, for ``batch`` images at a time or any number; False if nothing was written."""
    path = weights_file(options.ckpt_path, pretrained=options.pretrained, model=options.model)
    assert path is not None  # the command line names one
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
