"""Accuracy of a checkpoint on labelled images: python validate.py --data_dir DATA --ckpt_path FILE"""
from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Optional

from mindeit.config import option, parse
from mindeit.errors import front_door


@dataclass(frozen=True)
class Options:
    """Validation"""

    output: Optional[str] = option(None, "write the results, with every class, to this JSON file; -: to the screen")
    summary: bool = option(False, "print the model's parameters and GFLOPs by module, then stop")
    show: bool = option(False, "print what is in the checkpoint, then stop")


@front_door
def main() -> None:
    config = parse(sys.argv[1:], description=__doc__, door=Options, sections=("run", "data", "model"),
                   without=("drop_rate", "drop_path_rate"))
    from mindeit import build, files
    from mindeit.training import report

    if config.door.summary:
        print(build.summary(config))
        return
    if config.door.show:
        print("\n".join(build.contents(config)))
        return
    if config.door.output:
        files.check_writable(config.door.output)
    cluster = build.machine(config)
    result, about = build.validation(config, cluster)
    if cluster.main:
        print("\n".join(report.lines(result, about["skipped"], about["data_wait"])), flush=True)
        if config.door.output:
            files.write_json(config.door.output, report.as_json(result, **about))


if __name__ == "__main__":
    main()
