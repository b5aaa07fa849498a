"""Look for damaged, doubled and leaked images: mindeit check FOLDER

FOLDER holds a folder for each class, or train/ and val/ with these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from mindeit import files
from mindeit.config import option, parse
from mindeit.data.class_folders import left_out, open_parts
from mindeit.data.scan import scan
from mindeit.errors import run_script
from mindeit.factory.environment import data_workers
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.log import say


@dataclass(frozen=True)
class Options:
    """Check"""

    folder: str = option("", "a folder for each class, or train/ and val/ with these", positional=True, required=True)
    output: Optional[str] = option(None, "write all that is found to this JSON file; -: to the screen")
    min_side: int = option(32, "a shorter side makes an image small", at_least=1)


OTHERS = ("device_target", "device_id", "distributed", "mode", "amp_level", "seed")


@run_script
def main(argv: Sequence[str]) -> int:
    """Exit code 1 if an image cannot be read."""
    config = parse(argv, description=__doc__, script=Options, sections=("run",), without=OTHERS)
    options = config.script
    if options.output:
        files.check_writable(options.output)
    parts = open_parts(options.folder)
    for note in left_out(options.folder, parts):
        say(note)
    say(f"looking at {sum(map(len, parts.values())):,} images")
    report = scan(parts, workers=data_workers(config, Cluster()), min_side=options.min_side)
    print("\n".join(report.lines()))
    if options.output:
        files.write_json(options.output, report.as_json())
    bad = len(report.unreadable)
    print(f"{bad:,} of {report.images:,} images cannot be read" if bad else f"all {report.images:,} images can be read")
    return bool(bad)
