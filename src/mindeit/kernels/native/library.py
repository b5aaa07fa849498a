"""The library of fused operators: compiled by the system's C++ compiler at first use, then kept in the user's cache.

Where that is not possible, the reason is said once and MindSpore's own operators are used. Does not load MindSpore.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from filelock import FileLock

from mindeit.errors import UserError
from mindeit.files import atomic, cache_folder
from mindeit.kernels.native import onednn, selftest
from mindeit.runtime import log

SWITCH = "MINDEIT_NATIVE"  # 0: MindSpore's own operators
SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
# Not -ffast-math: a library that is linked with it makes its whole process flush small numbers to zero.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    *("-fopenmp", "-shared", "-fPIC"),
)
WIDE_FLAGS = ("-mprefer-vector-width=512",)  # else GCC halves the vectors of AVX-512
LONGEST = 120  # seconds of compiling; about four on an idle machine
# The widest vectors come first, as macros of the compiler.
VECTORS = {"__AVX512F__": "AVX-512", "__AVX2__": "AVX2", "__ARM_NEON": "NEON"}


class _UnavailableError(Exception):
    """Says why."""


@dataclass(frozen=True)
class Library:
    """``path`` is None where MindSpore's own operators are used; ``form`` says which are, and why. ``multiplies``: it
    has oneDNN for products of matrices."""

    path: Path | None
    form: str
    multiplies: bool = False


@functools.cache
def library() -> Library:
    """The compiled and tested library of this machine, the same for the whole process."""
    if os.environ.get(SWITCH) == "0":
        return Library(None, f"MindSpore's own ({SWITCH} is 0)")
    try:
        compiler = _compiler()
        vectors, macros = _target(compiler)
        path = _compiled(compiler, vectors, macros)
        multiplies = _tested(path)
    except _UnavailableError as problem:
        log.note(f"CPU operators: MindSpore's own, which are slower: {problem}")
        return Library(None, f"MindSpore's own ({problem})")
    products = "" if multiplies else ", but for products"
    return Library(path, f"fused{products} ({vectors}, {path})", multiplies)


def _compiler() -> list[str]:
    """The command; ``CXX`` and ``CXXFLAGS`` count, as for other C++ projects."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise _UnavailableError(f"there is no C++ compiler ({', '.join(names)})")
    return [found, *FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))]


def _target(compiler: list[str]) -> tuple[str, str]:
    """The vectors that the compiler uses here, and all its macros: they tell its version and what the CPU can do."""
    macros = _run([*compiler, "-dM", "-E", "-x", "c++", os.devnull], "asked about this CPU")
    vectors = next((name for macro, name in VECTORS.items() if re.search(rf"^#define {macro}\b", macros, re.M)), None)
    if vectors is None:
        raise _UnavailableError(f"this CPU has none of {', '.join(VECTORS.values())}")
    return vectors, macros


def _compiled(compiler: list[str], vectors: str, macros: str) -> Path:
    if vectors == "AVX-512":
        compiler = [*compiler, *WIDE_FLAGS]
    try:
        parts = [*(file.read_text() for file in (*HEADERS, *SOURCES)), macros, *compiler, metadata.version("mindspore")]
    except metadata.PackageNotFoundError:
        raise _UnavailableError("MindSpore is not installed") from None
    path = cache_folder() / "native" / f"operators-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    if path.exists():
        return path
    started = time.monotonic()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # several ranks may start at once
            if not path.exists():
                log.note(f"compiling the CPU operators, once, into {path}")
                with atomic(path) as temporary:
                    _run([*compiler, "-o", str(temporary), *map(str, SOURCES)], "compiling")
                log.note(f"compiled the CPU operators in {time.monotonic() - started:.1f} s")
    except OSError as error:
        raise _UnavailableError(f"{path.parent} (MINDEIT_HOME): {error.strerror or error}") from None
    except UserError as error:
        raise _UnavailableError(str(error)) from None
    return path


def _run(command: list[str], what: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONGEST).stdout
    except subprocess.TimeoutExpired:
        raise _UnavailableError(f"{command[0]}, {what}, took more than {LONGEST} s") from None
    except (OSError, subprocess.CalledProcessError) as error:
        lines = getattr(error, "stderr", None) or str(error)
        first = next((line for line in lines.splitlines() if "error" in line), lines.strip().split("\n")[0])
        raise _UnavailableError(f"{command[0]}, {what}, ended in: {first}") from None


def _tested(path: Path) -> bool:
    """Whether it multiplies, too."""
    cases = selftest.cases(np.random.default_rng(0))
    try:
        operators = ctypes.CDLL(str(path))
        wrong = selftest.first_wrong(operators, cases)
    except (OSError, AttributeError) as error:
        raise _UnavailableError(str(error)) from None
    if wrong:
        raise _UnavailableError(f"{path} computes {wrong} wrongly")
    try:
        operators.use_gemm(onednn.function("dnnl_sgemm"))
    except (OSError, AttributeError):  # MindSpore has it on x86 only
        return False
    return selftest.first_wrong(operators, selftest.product_cases(np.random.default_rng(0))) is None
