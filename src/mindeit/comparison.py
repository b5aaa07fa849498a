"""How far two results are from each other."""

from __future__ import annotations

import numpy as np


def gap(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Of each value, in standard deviations of ``wanted``."""
    wanted = wanted.astype(np.float64)
    return np.abs(found - wanted) / max(wanted.std(), np.finfo(np.float32).tiny)
