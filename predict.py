"""Name what is in pictures: python predict.py --ckpt_path FILE PICTURE_OR_FOLDER ..."""
from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Optional

from mindeit.config import option, parse
from mindeit.errors import front_door


@dataclass(frozen=True)
class Options:
    """Prediction"""

    images: tuple[str, ...] = option((), "picture files, or folders of them", positional=True, required=True)
    top_k: int = option(5, "classes named for each picture", at_least=1)
    output: Optional[str] = option(None, "write the predictions to this JSON file as well")
    attention: Optional[str] = option(None, "draw attention maps into this folder, a PNG for each picture")


@front_door
def main() -> None:
    config = parse(sys.argv[1:], description=__doc__, door=Options, sections=("run", "data", "model"))
    from mindeit import build, files
    from mindeit.data import list_images
    from mindeit.deploy.describe import describe

    door, pictures = config.door, list_images(config.door.images)
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
