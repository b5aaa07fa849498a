"""What MindSpore's Ascend back end chose for each operator of a graph, read from its log.

Simulation ends where kernels are first resized: stub libraries hold no operators' descriptions, and the process crashes
there. Kernels were chosen and given streams and events before that, which the log says for each graph.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

SETTINGS = {"MS_SUBMODULE_LOG_v": "{DEVICE:1}"}  # at level info, this module alone
_CHOSEN = re.compile(r"GenerateKernelMod\] kernel opname:(\w+), kernel type:(\w+)_kernel")
_SCHEDULED = re.compile(r"DoStreamAssign\] Status record: (start|end) stream assign")


def read(log: str) -> dict[str, Any] | None:
    """Kernels, collectives among them, and kernels by kind; None unless every graph begun was chosen to its end."""
    states = Counter(_SCHEDULED.findall(log))
    chosen = _CHOSEN.findall(log)
    if not chosen or not states["end"] or states["start"] != states["end"]:
        return None
    if log.rfind("GenerateKernelMod]") > log.rfind("DoStreamAssign]"):  # the last graph was not
        return None
    kinds = Counter(kind for _, kind in chosen)
    return {"kernels": len(chosen), "collectives": kinds["hccl"], "kinds": dict(kinds.most_common())}
