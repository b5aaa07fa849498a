"""Shared libraries: what they define and want (nm), and new ones from a list of functions (gcc)."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from mindeit.errors import UserError

WHEEL = Path(sysconfig.get_paths()["purelib"]) / "mindspore" / "lib"
TOOLS = ("gcc", "g++", "nm")


def check_tools() -> None:
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise UserError(f"the audit compiles stub libraries: {', '.join(missing)} not found in PATH")


def symbols(kind: str, *libraries: Path) -> set[str]:
    """Dynamic symbols ``defined`` or ``undefined`` in any of the libraries; undefined ones with their ``@version``."""
    lines = _output("nm", "-D", f"--{kind}-only", *libraries).splitlines()
    names = {line.split()[-1] for line in lines if len(line.split()) > 1}
    return names if kind == "undefined" else {name.partition("@")[0] for name in names}


def global_symbols(object_file: Path) -> set[str]:
    """What an object file defines for others."""
    lines = _output("nm", "--defined-only", "--extern-only", object_file).splitlines()
    return {line.split()[-1] for line in lines if len(line.split()) == 3}


def compile_object(source: Path, target: Path, *options: str) -> Path:
    compiler = "g++" if source.suffix == ".cc" else "gcc"
    _output(compiler, "-O1", "-fPIC", *options, "-c", source, "-o", target)
    return target


def link(target: Path, *inputs: object) -> None:
    _output("g++", "-shared", "-Wl,-Bsymbolic", "-o", target, *inputs, f"-Wl,-soname,{target.name}")


def functions(bodies: Mapping[str, str]) -> str:
    """C code from symbol -> C function of any name. Symbols need not be C names."""
    return "".join(f'{code[: code.index(" {")]} __asm__("{symbol}");\n{code}\n' for symbol, code in bodies.items())


def _output(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{command[0]} failed: {' '.join((done.stderr or done.stdout).split())[:400]}")
    return done.stdout
