"""Name what is in pictures: python predict.py --ckpt_path FILE PICTURE_OR_FOLDER ..."""
from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Optional

from mindeit.config import option, parse
from mindeit.errors import UserError, front_door


@dataclass(frozen=True)
class Options:
    """Prediction"""

    images: tuple[str, ...] = option((), "picture files, folders of them, or URLs", positional=True, required=True)
    top_k: int = option(5, "classes named for each picture", at_least=1)
    output: Optional[str] = option(None, "write the predictions to this JSON file as well; -: to the screen")
    attention: Optional[str] = option(None, "draw attention maps into this folder, a PNG for each picture")


IGNORED = ("dataset", "data_dir", "train_split", "val_split", "label_file", "num_parallel_workers",
           "python_multiprocessing", "drop_rate", "drop_path_rate")


def check_output(output: str, read: list[Optional[str]]) -> None:
    """Not a file that is read, under whatever name."""
    for name in filter(None, read):
        if os.path.realpath(name) == os.path.realpath(output):
            raise UserError(f"command line: --output is {output}, which is read; allowed: another name")


@front_door
def main() -> None:
    config = parse(sys.argv[1:], description=__doc__, door=Options, sections=("run", "data", "model"), without=IGNORED)
    from mindeit import build, files
    from mindeit.deploy.describe import describe
    from mindeit.deploy.inputs import listed

    door, pictures = config.door, listed(config.door.images)[0]
    if door.output:
        check_output(door.output, [*pictures, config.model.ckpt_path])
    for target in filter(None, (door.output, door.attention and f"{door.attention}/any.png")):
        files.check_writable(target)
    build.machine(config)
    results = describe(
        build.predictor(config),
        pictures,
        top_k=door.top_k,
        attention=door.attention,
        skip_bad_images=config.data.skip_bad_images,
    )
    if door.output:
        files.write_json(door.output, results)


if __name__ == "__main__":
    main()
