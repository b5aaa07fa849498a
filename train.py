"""Train, distil or fine-tune: python train.py --config configs/deit_t_gpu.yaml --data_dir DATA"""
from __future__ import annotations

import sys
from dataclasses import dataclass

from mindeit.config import option, parse
from mindeit.errors import front_door


@dataclass(frozen=True)
class Options:
    """Training"""

    dry_run: bool = option(False, "build everything, run one step and one evaluation batch, tell time and memory")


@front_door
def main() -> int:
    config = parse(sys.argv[1:], description=__doc__, door=Options)
    from mindeit import build

    cluster = build.machine(config)
    training = build.training(config, cluster)
    return training.rehearse() if config.door.dry_run else training.run()


if __name__ == "__main__":
    main()
