"""How much memory there is, so that what cannot fit is refused before it is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from mindeit.errors import UserError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def machine_memory() -> int:
    """Bytes of this machine, or of its container; 0 where the system does not tell."""
    try:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 0
    for path in map(Path, _LIMITS):
        try:
            sizes.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(sizes)


def check_fits(size: int, what: str) -> None:
    """Refuse what takes more than all memory; ``what`` begins the message: ``"batch_size is 9: a batch"``."""
    there = machine_memory()
    if there and size > there:
        raise UserError(f"{what} takes {_gib(size)} of memory, this machine has {_gib(there)}")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.0f} GiB"
