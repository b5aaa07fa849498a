"""Write the features of a folder of images: mindeit embed FOLDER --ckpt_path FILE --output features.npz

FOLDER holds a folder for each class, or train/ and val/ with these, or images alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from mindeit import files
from mindeit.config import OF_TRAINING, option, parse
from mindeit.data.class_folders import PARTS, left_out, open_images
from mindeit.errors import UserError, run_script
from mindeit.factory.environment import data_workers
from mindeit.factory.trained_model import build_predictor
from mindeit.predict.embed import POOLS, embed
from mindeit.predict.feature_table import check_suffix
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.log import say


@dataclass(frozen=True)
class Options:
    """Features"""

    folder: str = option(
        "", "folders of classes, train/ and val/ with these, or images", positional=True, required=True
    )
    output: str = option("features.npz", "file to write, .npz or .parquet")
    pool: str = option(
        "token", "token: what the head classifies; mean: of the patches after the last norm", choices=POOLS
    )
    part: Optional[str] = option(None, "this part of the folder alone", choices=PARTS)


OTHERS = (
    "distributed",
    "dataset",
    "data_dir",
    "train_split",
    "val_split",
    "label_file",
    "split_file",
    "batch_size",
    *OF_TRAINING,
)


@run_script
def main(argv: Sequence[str]) -> None:
    config = parse(argv, description=__doc__, script=Options, sections=("run", "data", "model"), without=OTHERS)
    options = config.script
    check_suffix(options.output)
    files.check_writable(options.output)
    parts = open_images(options.folder)
    if options.part and options.part not in parts:
        raise UserError(f"part is '{options.part}', but {options.folder} has {', '.join(parts)}")
    if not options.part:
        for note in left_out(options.folder, parts):
            say(note)
    parts = {options.part: parts[options.part]} if options.part else parts
    say(f"features of {sum(map(len, parts.values())):,} images")
    predictor = build_predictor(config)
    table, skipped = embed(
        predictor,
        parts,
        pool=options.pool,
        workers=data_workers(config, Cluster()),
        skip_bad_images=config.data.skip_bad_images,
    )
    table.write(options.output)
    for path in skipped:
        say(f"left out: {path} cannot be read")
    print(f"{options.output}: {len(table):,} images, {table.features.shape[1]} features each")
