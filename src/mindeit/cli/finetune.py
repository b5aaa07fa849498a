"""Fine-tune on a folder of your own images, one sub-folder per class: mindeit finetune FOLDER"""

from __future__ import annotations

from collections.abc import Sequence

from mindeit.cli import train
from mindeit.errors import UserError, run_script


@run_script
def main(argv: Sequence[str]) -> int:
    return train.train(with_folder(argv), description=__doc__)


def with_folder(argv: Sequence[str]) -> list[str]:
    """The words that `train` takes for ``FOLDER --key value ...``; a configuration of one's own replaces ours."""
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        raise UserError("which folder? usage: mindeit finetune FOLDER [--key value ...]")
    folder = [] if argv[0].startswith("-") else ["--data_dir", argv[0]]
    return ["-c", "finetune", *folder, *argv[len(folder) // 2 :]]
