"""MindSpore's Ascend back end without an NPU: with the CANN toolkit that is installed, or with stub libraries in its
place. Every function of a stub reports success; `cann_stubs.c` holds those that have to do more. Which there are is
read from the wheel: what its plugins want when they are loaded, and the names that they look up later."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from device_audit.libraries import WHEEL, compile_object, functions, global_symbols, link, symbols

C_SOURCE, CXX_SOURCE = (Path(__file__).with_suffix(suffix) for suffix in (".c", ".cc"))
MAIN = "libge_runner.so"  # holds all functions; the others lead to it
LIBRARIES = (  # what the plugins are linked with, or open
    "libnnopbase.so",
    "libascendcl.so",
    "libregister.so",
    "libprofapi.so",
    "libc_sec.so",
    "libruntime.so",
    "libexe_graph.so",
    "libhccl.so",
    "libgraph.so",
    "libatb.so",
    "libplatform.so",
    "libopapi.so",
    "libmmpa.so",
    "libascendalog.so",
    "libascend_hal.so",
    "libacl_dvpp_op.so",
    "libacl_dvpp_mpi.so",
    "libacl_dvpp.so",
    "libmsprofiler.so",
    "libacl_op_compiler.so",
    "libacl_tdt_channel.so",
    "libacltdt_queue.so",
    "libhcom_executor.so",
    "libcust_opapi.so",
    "libacl_cblas.so",
    "libopapi_math.so",
    "libopapi_nn.so",
    "libopapi_transformer.so",
)
_LOOKED_UP = re.compile(rb"\0((?:acl|Acl|Hccl|Hcom|hccl|hcom|Aoe|rt[A-Z]|ge[A-Z]|GE|mstx)\w+)(?=\0)")
_OTHERS = re.compile(r"_?Py|_ZTH|_Jv|_ITM|__|_ZNK?9mindspore|_ZNK?3ock")  # not CANN's
_PYTHON = {  # what ranks import from CANN's package
    "hccl/__init__.py": "from . import sys_version\n",
    "hccl/sys_version.py": "__sys_version__ = '1.0'\n",
    "hccl/manage/__init__.py": "",
    "hccl/manage/api.py": "def __getattr__(name):\n    return lambda *a, **k: 0\n",
}


def installed() -> bool:
    """Whether this machine has CANN itself."""
    home = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    return home is not None and (Path(home) / "lib64" / "libascendcl.so").exists()


def simulation(ranks: int) -> dict[str, str]:
    """The variables under which MindSpore compiles for one of ``ranks`` ranks that are not there."""
    return {"MS_SIMULATION_LEVEL": "1", "RANK_SIZE": str(ranks), "RANK_ID": "0", "MS_WORKER_NUM": str(ranks)}


def environment(folder: Path) -> dict[str, str]:
    """Write the libraries into ``folder``; the variables under which MindSpore takes them."""
    toolkit, python = folder / "latest", folder / "python"
    lib = toolkit / "lib64"
    lib.mkdir(parents=True)
    (toolkit / "opp").mkdir()
    for name, text in _PYTHON.items():
        (python / name).parent.mkdir(parents=True, exist_ok=True)
        (python / name).write_text(text)
    _write(folder, lib)
    return {
        "LD_LIBRARY_PATH": str(lib),
        "LD_PRELOAD": str(lib / MAIN),
        "ASCEND_HOME_PATH": str(toolkit),
        "ASCEND_OPP_PATH": str(toolkit / "opp"),
        "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(python)))),
    }


def _write(folder: Path, lib: Path) -> None:
    special = [
        compile_object(C_SOURCE, folder / "special_c.o", "-w"),
        compile_object(CXX_SOURCE, folder / "special_cxx.o", "-D_GLIBCXX_USE_CXX11_ABI=0"),
    ]
    written_here = global_symbols(special[0]) | global_symbols(special[1])
    source = folder / "functions.c"
    names = sorted(_wanted() - written_here)
    source.write_text(functions({name: f"int f{number}(void) {{ return 0; }}" for number, name in enumerate(names)}))
    link(lib / MAIN, compile_object(source, folder / "functions.o", "-O0", "-w"), *special)
    for name in LIBRARIES:
        link(lib / name, "-nostdlib", f"-L{lib}", "-Wl,--no-as-needed", f"-l:{MAIN}")


def _wanted() -> set[str]:
    own = [*(WHEEL / "plugin").glob("libmindspore*ascend*"), *(WHEEL / "plugin" / "ascend").glob("*.so*")]
    plugins = [*own, *(WHEEL / "plugin" / "ascend").glob("*/**/*.so*")]
    looked_up = {name.decode() for path in own for name in _LOOKED_UP.findall(path.read_bytes())}
    sizes = {f"{name}GetWorkspaceSize" for name in looked_up if name.startswith("aclnn")}  # joined when they are needed
    undefined = {name for name in symbols("undefined", *plugins) if "@" not in name}
    provided = symbols("defined", *plugins, *WHEEL.glob("*.so*"), *_system_libraries())
    return looked_up | sizes | {name for name in undefined - provided if not _OTHERS.match(name)}


def _system_libraries() -> list[Path]:
    names = ("libc.so.6", "libstdc++.so.6", "libm.so.6", "libgcc_s.so.1")
    found = [subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip() for name in names]
    return [Path(path) for path in found]
