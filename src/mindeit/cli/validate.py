"""Accuracy of a checkpoint on labelled images: python validate.py --data_dir DATA --ckpt_path FILE"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from mindeit import files
from mindeit.config import OF_TRAINING, option, parse
from mindeit.errors import UserError, run_script
from mindeit.export.onnx_session import PROVIDERS
from mindeit.training import report

if TYPE_CHECKING:
    from mindeit.factory.evaluation import Validation


@dataclass(frozen=True)
class Options:
    """Validation"""

    output: Optional[str] = option(
        None,
        "write the results, with every class, calibration and mistakes, to this .json file (-: to the screen), or the "
        "prediction of each image to this .csv file",
    )
    write_temperature: bool = option(
        False, "store the temperature that suits these images best in the checkpoint, for scores that can be trusted"
    )
    tta: Optional[str] = option(
        None,
        "average the logits over views of each image; flip: it and its mirror image, 5crop: middle and corners of the "
        "square that crop_pct cuts from",
        choices=("flip", "5crop"),
    )
    providers: tuple[str, ...] = option(
        (), "on what onnxruntime runs an .onnx file, the most wanted first; none: CPU", choices=PROVIDERS
    )
    summary: bool = option(False, "print the model's parameters and GFLOPs by module, then stop")
    show: bool = option(False, "print what is in the checkpoint, then stop")


@run_script
def main(argv: Sequence[str]) -> None:
    config = parse(argv, description=__doc__, script=Options, sections=("run", "data", "model"), without=OF_TRAINING)
    options = config.script
    _check(options)
    from mindeit.factory import environment, evaluation, temperature  # MindSpore, which takes seconds to load

    if options.summary:
        print(evaluation.summarize(config))
        return
    if options.show:
        print("\n".join(evaluation.show(config)))
        return
    if options.write_temperature:
        temperature.check(config)
    cluster = environment.start(config)
    detailed = bool(options.output or options.write_temperature)
    found = evaluation.validate(config, cluster, detailed=detailed, tta=options.tta, providers=options.providers)
    if cluster.main:
        skipped, data_wait = found.about["skipped"], found.about["data_wait"]
        print("\n".join(report.lines(found.result, skipped, data_wait, found.details)), flush=True)
        _write(found, options.output)
    if options.write_temperature and found.details:
        print(temperature.write(config, found.details), file=sys.stderr, flush=True)


def _check(options: Options) -> None:
    """What can be wrong with these options, before anything is loaded."""
    stops = next((name for name in ("summary", "show") if getattr(options, name)), None)
    if stops:
        for name in ("write_temperature", "tta", "providers"):
            if value := getattr(options, name):
                text = ",".join(value) if isinstance(value, tuple) else value
                raise UserError(f"command line: --{name} {text} has no effect with --{stops} True")
        return
    if options.write_temperature and options.tta:
        raise UserError(
            "command line: --write_temperature is for logits of single views, as predict.py has them; leave out --tta "
            f"{options.tta}"
        )
    if options.output:
        if Path(options.output).suffix.lower() not in (".json", ".csv") and not files.stays(options.output):
            raise UserError(
                f"command line: --output is {options.output}, allowed: a name that ends in .json or .csv, or - for the "
                "screen"
            )
        files.check_writable(options.output)
    if (options.output or options.write_temperature) and importlib.util.find_spec("sklearn") is None:
        raise UserError("--output and --write_temperature need scikit-learn: pip install scikit-learn")


def _write(found: Validation, output: str | None) -> None:
    if not output or not found.details:
        return
    if output.lower().endswith(".csv"):
        files.write_csv(output, found.details.rows())
    else:
        files.write_json(output, found.details.added_to(report.as_json(found.result, **found.about)))
