"""A checkpoint as MindIR or ONNX: python export.py --ckpt_path FILE --format ONNX"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mindeit import files
from mindeit.config import option, parse
from mindeit.errors import UserError, run_script
from mindeit.export.metadata import DYNAMIC
from mindeit.runtime.libraries import missing_libraries
from mindeit.weights.hub import is_on_hub

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}


@dataclass(frozen=True)
class Options:
    """Export"""

    format: str = option("", "kind of file", choices=("MINDIR", "ONNX", "AIR"), required=True)
    ckpt_path: Optional[str] = option(
        None, "weights (.ckpt, .safetensors, official .pth, timm's folder, hf://owner/name)"
    )
    output: Optional[str] = option(None, "file to write; None: beside the weights")
    batch: str = option("dynamic", "images at a time, or dynamic for any number")
    precision: str = option("fp32", "of weights and computing; fp16: norms stay fp32", choices=("fp32", "fp16"))
    preprocess: bool = option(False, "take uint8 images (batch, size, size, 3) and normalise them in the graph")
    heads: str = option("mean", "of a distilled model: their mean as one output, or both", choices=("mean", "both"))
    num_classes: Optional[int] = option(None, "0: features; None: the checkpoint's classes", choices=(0,))
    image_size: Optional[int] = option(
        None,
        "pixels a side, another one resizes the position table; None: the checkpoint's",
        at_least=1,
        aliases=("image_resize",),
    )
    model: Optional[str] = option(None, "name of the model; None: the checkpoint's")
    plugin: tuple[str, ...] = option((), "Python files of your own that register models (mindeit.register_model)")
    pretrained: bool = option(False, "take the official weights of that model, downloaded once")
    use_ema: bool = option(False, "take the averaged weights of a training checkpoint")
    no_check: bool = option(False, "take a file that does not match its digest", aliases=("no-check",))


@run_script
def main(argv: Sequence[str]) -> int:
    options = parse(argv, description=__doc__, script=Options, sections=()).script
    check_weights(options)
    batch, target = read_batch(options), choose_target(options)
    from mindeit.factory.export import export_model  # MindSpore, which takes seconds to load

    return 0 if export_model(options, target, batch) else 1


def check_weights(options: Options) -> None:
    missing = missing_libraries("Ascend") if options.format == "AIR" else []
    if missing:
        raise UserError(f"format AIR needs Ascend's toolkit, missing {', '.join(missing)}; allowed here: MINDIR, ONNX")
    if options.pretrained and (options.ckpt_path or not options.model):
        raise UserError("--pretrained needs --model NAME, and no --ckpt_path")
    if not options.pretrained and not options.ckpt_path:
        raise UserError("no weights: give --ckpt_path FILE, or --pretrained True --model NAME for the official ones")


def read_batch(options: Options) -> int | None:
    """None: any batch."""
    text = options.batch.lower()
    if text != DYNAMIC and not (text.isdecimal() and int(text)):
        raise UserError(
            f"command line: --batch is '{options.batch}', allowed: a whole number, at least 1, or {DYNAMIC}"
        )
    if text == DYNAMIC and options.format == "AIR":
        raise UserError("command line: --format AIR needs --batch N")
    return None if text == DYNAMIC else int(text)


def choose_target(options: Options) -> str:
    """Fail early if the name does not fit the format, or cannot be written."""
    suffix = SUFFIXES[options.format]
    source = options.ckpt_path or str(options.model)
    beside = Path(Path(source).name if is_on_hub(source) else source).with_suffix(suffix)
    target = Path(options.output or beside)
    if target.suffix != suffix:
        raise UserError(f"output {target} ends in '{target.suffix}'; format {options.format} allows {suffix}")
    files.check_writable(target)
    return str(target)
