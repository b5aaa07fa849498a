"""The work of export.py."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from mindeit.errors import UserError
from mindeit.export import web_page
from mindeit.export.attention_output import has_attention
from mindeit.export.metadata import ATTENTION, FEATURES, LOGITS, Description
from mindeit.export.writer import ExportMismatch, export
from mindeit.runtime import device
from mindeit.runtime.memory import check_fits
from mindeit.weights.load import load_model
from mindeit.weights.source import weights_file


def export_model(options: Any, target: str, batch: int | None) -> bool:
    """Export after all checks, for ``batch`` images at a time or any number; False if nothing was written."""
    path = weights_file(options.ckpt_path, pretrained=options.pretrained, model=options.model)
    assert path is not None  # the command line names one
    export_int8 = None
    if options.precision == "int8":
        from mindeit.factory.int8 import Int8Export  # needs onnx, which MindIR does without

        export_int8 = Int8Export(options, path)
    device.setup("Ascend" if options.format == "AIR" else "CPU")  # a traced graph runs anywhere
    model, card = load_model(
        path,
        model=options.model,
        num_classes=0 if options.outputs == (FEATURES,) else options.num_classes,
        image_size=options.image_size,
        use_ema=options.use_ema,
        check=not options.no_check,
    )
    if batch is not None:
        size = card.image_size
        check_fits(4 * 3 * size**2 * batch, f"--batch is {batch}: a batch of images of {size} pixels")
    if LOGITS in options.outputs and not card.num_classes:
        raise UserError(f"{path} has no classes, so no logits; allowed: --outputs {FEATURES}, {ATTENTION} or both")
    if options.outputs and LOGITS not in options.outputs:
        card = replace(card, num_classes=0, class_names=None, temperature=None)
    asked = options.outputs if options.outputs not in ((LOGITS,), (FEATURES,)) else ()
    if options.web and has_attention(model):
        asked = (LOGITS, ATTENTION)
    precision = "fp32" if export_int8 else options.precision
    description = Description(card, batch, options.heads, precision, options.preprocess, asked)
    try:
        if export_int8:
            export_int8(model, description, target)
        else:
            export(model, description, target, options.format)
    except ExportMismatch as error:
        print(f"nothing was written to {target}: {error}", file=sys.stderr)
        return False
    return True


def export_page(options: Any, target: str) -> bool:
    """The same, with what makes a web page around it; what a failure leaves behind goes."""
    with web_page.made(options.web, options.title):
        return export_model(options, target, None)
