"""Official PyTorch weights -> MindSpore checkpoint, back with --to_pt, and to timm with --to_timm."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mindeit.config import option, parse
from mindeit.errors import UserError, run_script
from mindeit.files import check_name
from mindeit.models.table import catalog_table
from mindeit.weights.hub import CONFIG, WEIGHTS, check_upload, is_on_hub

OURS = (".ckpt", ".safetensors")
OFFICIAL = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class Options:
    """Conversion"""

    input: Optional[str] = option(None, "official .pth or .safetensors; our .ckpt or .safetensors; a folder of timm's")
    output: Optional[str] = option(None, ".ckpt or .safetensors; with to_pt .pth or .safetensors")
    model: Optional[str] = option(None, "an official name; None: told from the weights")
    num_classes: Optional[int] = option(None, "start a new head of so many classes; None: the file's", at_least=0)
    image_size: Optional[int] = option(
        None,
        "pixels a side, another one resizes the position table; None: the file's",
        at_least=1,
        aliases=("image_resize",),
    )
    use_ema: bool = option(False, "take the averaged weights of a training checkpoint")
    no_check: bool = option(False, "take a file that does not match its digest")
    to_pt: bool = option(False, "the way back: write the official names")
    to_timm: Optional[str] = option(
        None, "write a folder that timm loads, with a model card, in place of output; hf://owner/name uploads it"
    )
    verify: bool = option(False, "run PyTorch and MindSpore; exit code 1 if they differ")
    list: bool = option(False, "print the table of official files and stop")


def check_folder(source: str, target: str) -> None:
    """Fail early if the folder cannot be written or made, or is the one that is read."""
    if is_on_hub(target):
        check_upload(target)
    elif {Path(target).resolve(), (Path(target) / WEIGHTS[0]).resolve()} & {Path(source).resolve()}:
        raise UserError(f"input and output are the same: {target}")
    elif os.path.exists(target) and not os.path.isdir(target):
        raise UserError(f"to_timm {target} is a file, a folder is written")
    else:
        check_writable_folder(Path(target) / CONFIG, f"to_timm {target}")


def check_target(source: str, target: str, suffixes: tuple[str, ...]) -> None:
    """Fail early if the suffix is not allowed, or the folder cannot be written or made."""
    path = Path(target)
    if path.suffix not in suffixes:
        raise UserError(f"output {target} ends in '{path.suffix}'; allowed: {', '.join(suffixes)}")
    if path.resolve() == Path(source).resolve():
        raise UserError(f"input and output are the same file: {target}")
    check_name(path)
    check_writable_folder(path, f"output {target}")


def check_writable_folder(path: Path, what: str) -> None:
    """Of ``path``, the nearest folder that there is."""
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f"{what} cannot be written: {folder} is no folder that may be written")


@run_script
def main(argv: Sequence[str]) -> int:
    options = parse(argv, description=__doc__, script=Options, sections=()).script
    if options.list:
        print(catalog_table())
        return 0
    target = options.to_timm or options.output
    if not (options.input and target):
        raise UserError(
            "--input and --output are needed (or --input and --to_timm, or --list); --help shows the options"
        )
    if options.to_timm and (options.output or options.to_pt):
        raise UserError(f"--to_timm {target} stands in place of --output and --to_pt; leave them out")
    if options.to_timm:
        check_folder(options.input, target)
    else:
        check_target(options.input, target, OFFICIAL if options.to_pt else OURS)
    from mindeit.convert.command import ParityMismatch, convert  # MindSpore, which takes seconds to load

    settings = {key: value for key, value in vars(options).items() if key not in ("input", "output", "list", "to_timm")}
    try:
        convert(options.input, target, to_timm=options.to_timm is not None, **settings)
    except ParityMismatch:
        print(f"nothing was written to {target}: PyTorch and MindSpore differ", file=sys.stderr)
        return 1
    return 0
