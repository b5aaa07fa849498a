"""Accuracy of a checkpoint on labelled images: python validate.py --data_dir DATA --ckpt_path FILE"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from mindeit import files
from mindeit.config import option, parse
from mindeit.errors import run_script
from mindeit.training import report


@dataclass(frozen=True)
class Options:
    """Validation"""

    output: Optional[str] = option(None, "write the results, with every class, to this JSON file; -: to the screen")
    summary: bool = option(False, "print the model's parameters and GFLOPs by module, then stop")
    show: bool = option(False, "print what is in the checkpoint, then stop")


@run_script
def main(argv: Sequence[str]) -> None:
    config = parse(
        argv,
        description=__doc__,
        script=Options,
        sections=("run", "data", "model"),
        without=("drop_rate", "drop_path_rate", "held_out", "by_amount"),
    )
    if config.script.output and not (config.script.summary or config.script.show):
        files.check_writable(config.script.output)
    from mindeit.factory import environment, evaluation  # MindSpore, which takes seconds to load

    if config.script.summary:
        print(evaluation.summarize(config))
        return
    if config.script.show:
        print("\n".join(evaluation.show(config)))
        return
    cluster = environment.start(config)
    result, about = evaluation.validate(config, cluster)
    if cluster.main:
        print("\n".join(report.lines(result, about["skipped"], about["data_wait"])), flush=True)
        if config.script.output:
            files.write_json(config.script.output, report.as_json(result, **about))
