"""The oneDNN that comes with MindSpore, whose plain C functions multiply for our operators. Does not load MindSpore."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path


@functools.cache
def load() -> ctypes.CDLL:
    """Raises OSError where there is none."""
    found = importlib.util.find_spec("mindspore")
    folder = Path(found.origin).parent / "lib" if found and found.origin else Path()
    return ctypes.CDLL(str(next(folder.glob("libdnnl.so*"), folder / "libdnnl.so")))


def function(name: str) -> ctypes.c_void_p:
    """Its address; raises OSError or AttributeError where it is missing."""
    return ctypes.cast(getattr(load(), name), ctypes.c_void_p)
