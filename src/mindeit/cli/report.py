"""The page of a run, or of several side by side: mindeit report RUN ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mindeit import files
from mindeit.config import option, parse
from mindeit.errors import UserError, run_script
from mindeit.training.run_folder import CONFIG, REPORT


@dataclass(frozen=True)
class Options:
    """Report"""

    runs: tuple[str, ...] = option((), "folders of runs (ckpt_save_dir)", positional=True, required=True)
    output: Optional[str] = option(None, f"file to write; None: {REPORT} in the run's folder, of several here")


@run_script
def main(argv: Sequence[str]) -> None:
    options = parse(argv, description=__doc__, script=Options, sections=()).script
    folders = [Path(run) for run in options.runs]
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise UserError(f"{folder} holds no run: {CONFIG} is missing")
    output = Path(options.output or (folders[0] / REPORT if len(folders) == 1 else REPORT))
    files.check_writable(output)
    configs = [parse(["-c", str(folder / CONFIG)], description="") for folder in folders]
    from mindeit.factory import environment, report  # MindSpore, which takes seconds to load

    reports = [report.of_folder(config, environment.start(config), folder) for config, folder in zip(configs, folders)]
    report.write(reports, output)
    print(output)
