"""Official PyTorch weights -> MindSpore checkpoint, and back with --to_pt."""
from __future__ import annotations

import argparse
import sys

from mindeit.errors import UserError, front_door, nearest


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(f"{message}; --help shows the options")


def parser() -> Parser:
    p = Parser(description=__doc__, allow_abbrev=False)
    p.add_argument("--input", metavar="FILE", help="official .pth or .safetensors; our .ckpt or .safetensors")
    p.add_argument("--output", metavar="FILE", help=".ckpt or .safetensors; with --to_pt .pth or .safetensors")
    p.add_argument("--model", metavar="NAME", help="an official name (default: told from the weights)")
    p.add_argument("--num_classes", type=int, metavar="N", help="start a new head of N classes (default: the file's)")
    p.add_argument("--image_size", type=int, metavar="S", help="resize the position table (default: the file's)")
    p.add_argument("--use_ema", action="store_true", help="take the averaged weights of a training checkpoint")
    p.add_argument("--no-check", "--no_check", action="store_true", help="take a file that does not match its digest")
    p.add_argument("--to_pt", action="store_true", help="the way back: write the official names")
    p.add_argument("--verify", action="store_true", help="run PyTorch and MindSpore; exit code 1 if they differ")
    p.add_argument("--list", action="store_true", help="print the table of official files and stop")
    return p


def main() -> int:
    options, unknown = parser().parse_known_args()
    if unknown:
        flags = [f"--{name}" for name in vars(options)]
        raise UserError(f"unknown option {unknown[0]}{nearest(unknown[0], flags)}; --help shows the options")
    if options.list:
        from mindeit.convert.pretrained import catalog_table

        print(catalog_table())
        return 0
    if not (options.input and options.output):
        raise UserError("--input and --output are needed (or --list); --help shows the options")
    from mindeit.convert.command import Different, convert

    settings = {key: value for key, value in vars(options).items() if key not in ("input", "output", "list")}
    try:
        convert(options.input, options.output, **settings)
    except Different:
        print(f"nothing was written to {options.output}: PyTorch and MindSpore differ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    front_door(main)()
