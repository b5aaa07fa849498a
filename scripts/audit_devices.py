"""Compile the training steps of all configurations for CPU, GPU and Ascend on a machine without these devices.

    python scripts/audit_devices.py                                    # all of configs/*_gpu.yaml and *_ascend.yaml
    python scripts/audit_devices.py deit_b_gpu 'cait_*' --device GPU
    python scripts/audit_devices.py --write docs/devices.md --json audit.json

The installed wheel's own back ends compile, choose kernels, plan memory and run their schedule at true sizes, against
libraries that count calls and compute nothing. Three ways: CPU, the graph of one of 8 ranks; GPU, one rank and two;
Ascend, one of 8 simulated ranks, until kernels are chosen. What breaks, and what launches, copies or waits more than
`device_audit/budget.py` allows, makes the exit code 1. Needs gcc, g++ and nm on x86-64 Linux.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from device_audit import signature, table, tries

from mindeit.errors import UserError, run_script


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", nargs="*", help="files, or names and patterns of configs/")
    parser.add_argument("--device", choices=tries.DEVICES, action="append", help="only this one; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="record of counts; what it holds is not tried again")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    parser.add_argument("--jobs", type=int, default=1, help="tries at a time; each takes a core and 2 to 12 GB")
    return parser.parse_args(argv)


@run_script
def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}; allowed: at least 1")
    planned = tries.plan(options.configurations, options.device or tries.DEVICES)
    outcomes = tries.run_all(planned, {one: signature.signature(one) for one in planned}, options.jobs, options.json)
    text = table.markdown(outcomes)
    print(text)
    if options.write:
        table.write(options.write, text)
    return 0 if all(outcome.ok for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    main()
