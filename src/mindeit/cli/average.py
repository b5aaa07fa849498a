"""Average the weights of several checkpoints of a model: mindeit average FILE FILE ... --output SOUP.ckpt"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mindeit.config import option, parse
from mindeit.errors import UserError, run_script
from mindeit.files import check_writable
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.average import average


@dataclass(frozen=True)
class Options:
    """Average"""

    checkpoints: tuple[str, ...] = option((), "two or more files of weights", positional=True, required=True)
    output: Optional[str] = option(None, "the .ckpt or .safetensors to write", required=True)
    use_ema: bool = option(False, "take the averaged weights of training checkpoints")
    no_check: bool = option(False, "take files that do not match their digest", aliases=("no-check",))


@run_script
def main(argv: Sequence[str]) -> None:
    options = parse(argv, description=__doc__, script=Options, sections=()).script
    files, output = options.checkpoints, options.output
    if len(files) < 2:
        raise UserError(f"command line: checkpoints is {files[0]}, allowed: two or more files")
    if Path(output).suffix not in checkpoints.SUFFIXES:
        allowed = " or ".join(checkpoints.SUFFIXES)
        raise UserError(f"command line: --output is {output}, allowed: a name that ends in {allowed}")
    if os.path.realpath(output) in map(os.path.realpath, files):
        raise UserError(f"command line: --output is {output}, which is read; allowed: another name")
    check_writable(output)
    state, card = average(files, use_ema=options.use_ema, check=not options.no_check)
    checkpoints.write(output, state, card)
    print(f"wrote {output}: the mean of {len(files)} files, {card.model}, {len(state)} tensors")
