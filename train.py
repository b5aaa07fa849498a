"""Train, distil or fine-tune: python train.py --config configs/deit_t_gpu.yaml --data_dir DATA"""
from __future__ import annotations

import sys
from dataclasses import dataclass

from mindeit.config import option, parse
from mindeit.errors import front_door


@dataclass(frozen=True)
class Options:
    """Rehearsal"""

    dry_run: bool = option(False, "build everything, read what is held out, try a batch of each, then stop")


@front_door
def main() -> int:
    config = parse(sys.argv[1:], description=__doc__, door=Options)
    from mindeit import build
    from mindeit.training.interrupt import Interrupt

    build.begin(config)
    with Interrupt() as interrupt:
        from mindeit.runtime import log
        from mindeit.training.rehearsal import rehearse

        cluster = build.machine(config)
        with build.run_folder(config, cluster) as folder:
            training = build.training(config, cluster, folder)
            if not config.door.dry_run:
                with log.kept_in(folder.path / "log.txt"):
                    return training.run(interrupt)
            lines = rehearse(training)
        if cluster.main:
            print("\n".join(lines), flush=True)
        return 0


if __name__ == "__main__":
    main()
