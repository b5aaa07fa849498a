"""Train, distil or fine-tune: python train.py -c deit_t_gpu --data_dir DATA"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mindeit.config import option, parse
from mindeit.errors import run_script
from mindeit.runtime import log
from mindeit.runtime.environment import versions
from mindeit.training.interrupt import Interrupt


@dataclass(frozen=True)
class Options:
    """Dry run"""

    dry_run: bool = option(False, "build everything, read what is held out, try a batch of each, then stop")


@run_script
def main(argv: Sequence[str]) -> int:
    return train(argv, description=__doc__)


def train(argv: Sequence[str], *, description: str) -> int:
    """The exit code of a run; `mindeit finetune` is one too."""
    with Interrupt() as interrupt:
        from mindeit.factory import by_amount  # NumPy, whose threads would take the signals outside `Interrupt`

        config = parse(argv, description=description, script=Options, derive=by_amount.settings)
        run = config.run
        named = config.model.model or config.model.ckpt_path or "a model"
        log.begin(f"training {named} on {run.device_target}, amp_level {run.amp_level}, seed {run.seed}; {versions()}")
        from mindeit.factory import environment, training  # MindSpore, likewise
        from mindeit.training.dry_run import dry_run  # likewise

        cluster = environment.start(config)
        with training.open_folder(config, cluster) as folder:
            loop = training.build_training(config, cluster, folder)
            if not config.script.dry_run:
                with log.kept_in(folder.path / "log.txt"):
                    return loop.run(interrupt)
            lines = dry_run(loop)
        if cluster.main:
            print("\n".join(lines), flush=True)
        return 0
