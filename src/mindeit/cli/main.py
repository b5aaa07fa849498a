"""The console command: ``mindeit train ...`` is ``python train.py ...``, and so on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mindeit.errors import UserError, nearest, run_script
from mindeit.version import __version__


class Command(NamedTuple):
    help: str
    extra: str = "train"  # what pip installs for it: mindeit[train]


COMMANDS = {
    "train": Command("train, distil or fine-tune a model"),
    "finetune": Command("fine-tune on a folder of your own images: mindeit finetune FOLDER"),
    "validate": Command("measure the accuracy of a model on labelled images"),
    "predict": Command("name what is in images, and show what the model looked at"),
    "report": Command("write the page of one run, or of several side by side: mindeit report RUN ..."),
    "export": Command("write a model as MindIR or ONNX", "export"),
    "convert": Command("convert official PyTorch weights, or back with --to_pt", "convert"),
    "check": Command("look for damaged, doubled and leaked images in a folder", "train"),
    "embed": Command("write the features of a folder of images"),
    "probe": Command("measure what features know, and find labels that look wrong", "probe"),
    "average": Command("average the weights of several checkpoints of a model"),
    "serve": Command("answer over HTTP what is in an image: mindeit serve FILE.onnx", "serve"),
    "models": Command("list the models and their official files: mindeit models 'deit3*'"),
    "env": Command("print versions and devices, for a report of a fault"),
}


@run_script
def main(argv: Sequence[str]) -> int:
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"mindeit {__version__}")
        return 0
    if name not in COMMANDS:
        raise UserError(f"unknown command '{name}'{nearest(name, COMMANDS)}; allowed: {', '.join(COMMANDS)}")
    sys.argv = [f"mindeit {name}", *argv[1:]]  # what help texts and the record of a run call the program
    try:
        importlib.import_module(f"mindeit.cli.{name}").main()
    except ModuleNotFoundError as error:
        package = (error.name or "mindeit").split(".")[0]
        if package == "mindeit":
            raise
        pip = f"pip install 'mindeit[{COMMANDS[name].extra}]'"
        raise UserError(f"mindeit {name} needs {package}, which is not installed: {pip}") from None
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: mindeit COMMAND [--key value ...]", "", *lines, "", "options: mindeit COMMAND --help"])


if __name__ == "__main__":
    main()
