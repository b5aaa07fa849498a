"""Finds out what a PyTorch pickle would do without doing it: its calls, and the sizes of its storages.

PyTorch's own safe reading refuses what could run code, not what fills the memory: ``bytearray(2**31)`` is a call like
any other there, and a storage is as large as the pickle says.
"""

from __future__ import annotations

import _compat_pickle
import pickle
from mmap import mmap
from typing import Any, BinaryIO

_ALLOWED = {
    "argparse.Namespace",
    "builtins.set",
    "collections.OrderedDict",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "_codecs.encode",
}
_LONGEST = 64  # entries or characters that a call may copy; what a dictionary or a list holds comes otherwise
_OPERATIONS = """
    GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE NEWTRUE
    EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING BINPERSID
    BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1 PROTO STOP"""  # those that torch.load(weights_only=True) knows


class Refused(Exception):
    """The name of what a pickle calls."""


def storages(file: BinaryIO | mmap) -> dict[str, tuple[str, int]]:
    """Key -> (kind of storage, number of its elements) of the pickle that ``file`` stands at."""
    survey = _Survey(file, encoding="bytes")
    survey.load()
    return survey.storages


class _InertObject:
    """Stands for each thing that a pickle names; made, filled or changed, it does nothing."""

    place = ""

    def __new__(cls, *arguments: Any) -> _InertObject:
        sized = [argument for argument in arguments if isinstance(argument, (str, bytes, list, tuple, dict, set))]
        if cls.place not in _ALLOWED or any(len(argument) > _LONGEST for argument in sized):
            raise Refused(cls.place)
        return object.__new__(cls)

    def _ignore(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = update = _ignore


class _Survey(pickle._Unpickler):  # the one in Python: it takes no memory ahead for what a pickle only announces
    dispatch = {
        code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, name)[0] for name in _OPERATIONS.split())
    }

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self.storages: dict[str, tuple[str, int]] = {}
        self._kinds: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> type:
        module, name = _compat_pickle.NAME_MAPPING.get(
            (module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        )
        place = f"{module}.{name}"
        return self._kinds.setdefault(place, type(name, (_InertObject,), {"place": place}))

    def persistent_load(self, pid: Any) -> None:
        _, kind, key, _, count = pid[:5]
        self.storages[key] = (kind.place, max(count, self.storages.get(key, ("", 0))[1]))
