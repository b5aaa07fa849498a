"""Stub CUDA libraries for the installed MindSpore wheel: its GPU back end then compiles, selects kernels, plans memory
and runs its schedule without a GPU. Every function counts its calls and reports success; `cuda_stubs.c` holds those
that have to do more. Which functions there are is read from the wheel, for its CUDA 11.6 plugin."""

from __future__ import annotations

import collections
import json
import re
from pathlib import Path

from device_audit.libraries import WHEEL, compile_object, functions, global_symbols, link, symbols

SOURCE = Path(__file__).with_suffix(".c")
KERNELS = "libcuda_ops.so.11"  # MindSpore's own
UNVERSIONED = ("libcuda.so.1", KERNELS, "libnccl.so.2")
_NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release 11.6, V11.6.124'\n"  # MindSpore asks it for the version
_COUNTS = "int f{number}(void) {{ stub_counts[{number}]++; return 0; }}"
# Returns a structure by a hidden pointer; an empty one does.
_COUNTS_EMPTY = "void *f{number}(long *out) {{ stub_counts[{number}]++; out[0] = out[1] = out[2] = 0; return out; }}"


def environment(folder: Path) -> dict[str, str]:
    """Write the libraries into ``folder``; the variables under which MindSpore takes them."""
    nvcc = folder / "toolkit" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    (folder / "toolkit" / "lib64").mkdir()
    nvcc.write_text(_NVCC)
    nvcc.chmod(0o755)
    special = compile_object(SOURCE, folder / "special.o", "-w")
    written_here = global_symbols(special)
    wanted = {library: sorted(names) for library, names in _wanted().items()}
    for library, names in wanted.items():
        _write(folder, library, names, special, written_here)
    (folder / "functions.json").write_text(json.dumps(wanted))
    return {
        "CUDA_HOME": str(folder / "toolkit"),
        "LD_PRELOAD": " ".join(str(folder / library) for library in wanted),
        "AUDIT_STUBS": str(folder),
    }


def _wanted() -> dict[str, set[str]]:
    """Library -> the functions that the plugin takes from it."""
    plugin = WHEEL / "plugin"
    kernels = symbols("defined", plugin / "gpu" / KERNELS)
    wanted: dict[str, set[str]] = collections.defaultdict(set)
    for symbol in symbols("undefined", plugin / "libmindspore_gpu.so.11.6", plugin / "gpu11.6" / "libakg.so"):
        name, _, library = symbol.partition("@")
        if library.startswith(("libcu", "libnvrtc")):
            wanted[library].add(name)
        elif re.match(r"cu[A-Z]|nvrtc", name) and not library:
            wanted["libcuda.so.1"].add(name)
        elif name in kernels:
            wanted[KERNELS].add(name)
    collective = symbols("undefined", plugin / "gpu11.6" / "libnvidia_collective.so")
    wanted["libnccl.so.2"] = {name.partition("@")[0] for name in collective if name.startswith("nccl")}
    return wanted


def _write(folder: Path, library: str, names: list[str], special: Path, written_here: set[str]) -> None:
    source, script = folder / f"{library}.c", folder / f"{library}.map"
    source.write_text(_source(names, written_here))
    exported = [*names, "stub_counts", "stub_traffic"]
    version = "" if library in UNVERSIONED else library
    script.write_text(f"{version} {{ global: {' '.join(f'{name};' for name in exported)} local: *; }};\n")
    counting = compile_object(source, folder / f"{library}.o", "-O0", "-w")
    link(folder / library, counting, special, f"-Wl,--version-script={script}")


def _source(names: list[str], written_here: set[str]) -> str:
    """A counter for each name, and a function for those that nobody has written."""
    bodies = {
        name: (_COUNTS_EMPTY if "BroadcastCalStride" in name else _COUNTS).format(number=number)
        for number, name in enumerate(names)
        if name not in written_here
    }
    return f"long stub_counts[{len(names)}];\n" + functions(bodies)
