"""A checkpoint as MindIR or ONNX: python export.py --ckpt_path FILE --format ONNX"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from mindeit.config import option, parse
from mindeit.errors import run_script


@dataclass(frozen=True)
class Options:
    """Export"""

    format: str = option("", "kind of file", choices=("MINDIR", "ONNX", "AIR"), required=True)
    ckpt_path: Optional[str] = option(None, "weights (.ckpt, .safetensors or official .pth)")
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
    config = parse(argv, description=__doc__, script=Options, sections=())
    from mindeit.factory.export import export_model  # MindSpore, which takes seconds to load

    return 0 if export_model(config.script) else 1
