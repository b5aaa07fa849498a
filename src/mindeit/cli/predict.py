"""Name what is in images: python predict.py --ckpt_path FILE IMAGE_OR_FOLDER ..."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from mindeit import files
from mindeit.config import OF_TRAINING, option, parse
from mindeit.errors import UserError, run_script
from mindeit.export.onnx_session import PROVIDERS
from mindeit.factory.trained_model import build_predictor
from mindeit.predict.describe import describe
from mindeit.predict.inputs import listed
from mindeit.predict.predictor import Predictor


@dataclass(frozen=True)
class Options:
    """Prediction"""

    images: tuple[str, ...] = option((), "image files, folders of them, or URLs", positional=True, required=True)
    top_k: int = option(5, "classes named for each image", at_least=1)
    calibrated: Optional[bool] = option(
        None, "divide logits by the temperature that validate.py stored; None: where there is one"
    )
    providers: tuple[str, ...] = option(
        (), "on what onnxruntime runs an .onnx file, the most wanted first; none: CPU", choices=PROVIDERS
    )
    output: Optional[str] = option(None, "write the predictions to this JSON file as well; -: to the screen")
    attention: Optional[str] = option(None, "draw attention maps into this folder, a PNG for each image")
    attention_style: Optional[str] = option(
        None,
        "overlay: the image and its rollout; grid: the heads of the last block as well; None: grid",
        choices=("overlay", "grid"),
    )


IGNORED = (
    "dataset",
    "data_dir",
    "train_split",
    "val_split",
    "label_file",
    "split_file",
    "num_parallel_workers",
    "python_multiprocessing",
    *OF_TRAINING,
)


def check_output(output: str, read: list[Optional[str]]) -> None:
    """``output`` must not be one of the files that are read, also by another name."""
    for name in filter(None, read):
        if os.path.realpath(name) == os.path.realpath(output):
            raise UserError(f"command line: --output is {output}, which is read; allowed: another name")


def _calibrated(predictor: Predictor, asked: Optional[bool]) -> Predictor:
    if asked and predictor.temperature is None:
        raise UserError(
            "command line: --calibrated is True, but the file holds no temperature; validate.py --write_temperature "
            "True stores one"
        )
    if asked is False:
        predictor.temperature = None
    return predictor


@run_script
def main(argv: Sequence[str]) -> None:
    config = parse(argv, description=__doc__, script=Options, sections=("run", "data", "model"), without=IGNORED)
    options = config.script
    if options.attention_style and not options.attention:
        raise UserError(
            f"command line: --attention_style {options.attention_style} has no effect without --attention FOLDER"
        )
    images = [str(image) for image in listed(options.images)[0]]
    if options.output:
        check_output(options.output, [*images, config.model.ckpt_path])
    for target in filter(None, (options.output, options.attention and f"{options.attention}/any.png")):
        files.check_writable(target)
    results = describe(
        _calibrated(build_predictor(config, options.providers), options.calibrated),
        images,
        top_k=options.top_k,
        attention=options.attention,
        attention_style=options.attention_style or "grid",
        skip_bad_images=config.data.skip_bad_images,
    )
    if options.output:
        files.write_json(options.output, results)
