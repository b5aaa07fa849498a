"""A checkpoint as MindIR or ONNX: python export.py --ckpt_path FILE --format ONNX

Or as a page that classifies images in the browser: python export.py --ckpt_path FILE --web FOLDER"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from mindeit import files
from mindeit.config import option, parse
from mindeit.errors import UserError, run_script
from mindeit.export import web_page
from mindeit.export.metadata import DYNAMIC, KINDS
from mindeit.runtime.libraries import missing_libraries
from mindeit.weights.hub import is_on_hub

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}


@dataclass(frozen=True)
class Options:
    """Export"""

    format: Optional[str] = option(None, "kind of file", choices=("MINDIR", "ONNX", "AIR"))
    web: Optional[str] = option(None, "in place of a file: a new folder, a page that classifies images in the browser")
    title: Optional[str] = option(None, "of that page; None: What is in this image?")
    ckpt_path: Optional[str] = option(
        None, "weights (.ckpt, .safetensors, official .pth, timm's folder, hf://owner/name)"
    )
    output: Optional[str] = option(None, "file to write; None: beside the weights")
    batch: str = option("dynamic", "images at a time, or dynamic for any number")
    precision: Optional[str] = option(
        None,
        "of weights and computing; fp16: norms stay fp32; fp16-weights: computed in fp32; int8: products in bytes, "
        "kept by its accuracy; None: fp32, of a page fp16-weights",
        choices=("fp32", "fp16", "fp16-weights", "int8"),
    )
    calibrate: Optional[str] = option(
        None, "folder of images that fix the ranges for int8; None: each call finds its own"
    )
    data_dir: Optional[str] = option(None, "held-out images for int8: a folder with val/, or a class folder")
    dataset: Optional[str] = option(
        None, "for int8, in place of a folder: the digits in the package", choices=("digits",)
    )
    tolerance: Optional[float] = option(None, "points of accuracy that int8 may lose; None: 0.5", at_least=0)
    unchecked: bool = option(False, "write an int8 file without images to check it with")
    preprocess: bool = option(False, "take uint8 images (batch, size, size, 3) and normalise them in the graph")
    heads: str = option("mean", "of a distilled model: their mean as one output, or both", choices=("mean", "both"))
    outputs: tuple[str, ...] = option((), "several of these by comma; none: logits", choices=KINDS)
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
    options = settled(parse(argv, description=__doc__, script=Options, sections=()).script)
    check_weights(options)
    check_outputs(options)
    check_int8(options)
    batch, target = read_batch(options), choose_target(options)
    if options.web:
        web_page.check_folder(options.web)
    from mindeit.factory.export import export_model, export_page  # MindSpore, which takes seconds to load

    return 0 if (export_page(options, target) if options.web else export_model(options, target, batch)) else 1


def settled(options: Options) -> Options:
    """With what follows from the kind of result; a page is an ONNX file and what shows it."""
    if bool(options.format) == bool(options.web):
        raise UserError("command line: give --format MINDIR, ONNX or AIR for a file, or --web FOLDER for a page")
    if not options.web:
        if options.title:
            raise UserError("command line: --title has no effect without --web FOLDER")
        return replace(options, precision=options.precision or "fp32")
    for name in ("output", "batch", "preprocess", "heads", "outputs", "num_classes"):
        if getattr(options, name) != getattr(Options(), name):
            raise UserError(f"command line: --{name} has no effect with --web, where the page decides it")
    if options.precision == "fp16":
        raise UserError(
            "command line: --precision is fp16, in which browsers do not compute; allowed: fp16-weights, fp32, int8"
        )
    target = str(Path(options.web, web_page.MODEL))
    return replace(options, format="ONNX", output=target, precision=options.precision or "fp16-weights")


def check_weights(options: Options) -> None:
    missing = missing_libraries("Ascend") if options.format == "AIR" else []
    if missing:
        raise UserError(f"format AIR needs Ascend's toolkit, missing {', '.join(missing)}; allowed here: MINDIR, ONNX")
    if options.pretrained and (options.ckpt_path or not options.model):
        raise UserError("--pretrained needs --model NAME, and no --ckpt_path")
    if not options.pretrained and not options.ckpt_path:
        raise UserError("no weights: give --ckpt_path FILE, or --pretrained True --model NAME for the official ones")


def check_outputs(options: Options) -> None:
    if options.outputs and options.num_classes == 0:
        raise UserError("command line: --num_classes 0 says --outputs features; give one of the two")
    if len(set(options.outputs)) < len(options.outputs):
        raise UserError(f"command line: --outputs is {','.join(options.outputs)}; allowed: each once")


def check_int8(options: Options) -> None:
    """That nothing is left to chance, and no option without effect."""
    names = ("calibrate", "data_dir", "dataset", "tolerance", "unchecked")
    given = [name for name in names if getattr(options, name) is not None and getattr(options, name) is not False]
    if options.precision != "int8":
        if given:
            raise UserError(f"command line: --{given[0]} has no effect without --precision int8")
        return
    if options.format != "ONNX":
        raise UserError(f"command line: --precision int8 is for --format ONNX, not {options.format}")
    checks = [f"--{name}" for name in given if name in ("data_dir", "dataset", "unchecked")]
    if len(checks) != 1:
        raise UserError(
            "command line: --precision int8 needs one of --data_dir FOLDER (held-out images), --dataset digits and "
            f"--unchecked, got {' and '.join(checks) or 'none'}"
        )
    if options.unchecked and options.tolerance is not None:
        raise UserError("command line: --tolerance has no effect with --unchecked")


def read_batch(options: Options) -> int | None:
    """None: any batch."""
    text = options.batch.lower()
    if text != DYNAMIC and not (text.isdecimal() and int(text)):
        raise UserError(
            f"command line: --batch is '{options.batch}', allowed: a whole number, at least 1, or {DYNAMIC}"
        )
    if options.precision == "fp16-weights" and options.format != "ONNX":
        raise UserError(f"command line: --precision fp16-weights is for --format ONNX, not {options.format}")
    if text == DYNAMIC and options.format == "AIR":
        raise UserError("command line: --format AIR needs --batch N")
    return None if text == DYNAMIC else int(text)


def choose_target(options: Options) -> str:
    """Fail early if the name does not fit the format, or cannot be written."""
    suffix = SUFFIXES[str(options.format)]
    source = options.ckpt_path or str(options.model)
    beside = Path(Path(source).name if is_on_hub(source) else source).with_suffix(suffix)
    target = Path(options.output or beside)
    if target.suffix != suffix:
        raise UserError(f"output {target} ends in '{target.suffix}'; format {options.format} allows {suffix}")
    files.check_writable(target)
    return str(target)
