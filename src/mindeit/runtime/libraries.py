"""What MindSpore's back ends take from the machine, looked for without loading MindSpore."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import subprocess

# Of CUDA 11 and cuDNN 8, for which MindSpore is built; NCCL lies in its wheel.
CUDA = (
    "libcudart.so.11.0",
    "libcublas.so.11",
    "libcudnn.so.8",
    "libcufft.so.10",
    "libcurand.so.10",
    "libcusolver.so.11",
    "libcusparse.so.11",
    "libnvrtc.so.11.2",
)
CANN = ("libascendcl.so", "libge_runner.so", "libhccl.so")
CANN_PACKAGES = ("te", "hccl")
DRIVERS = {"GPU": "libcuda.so.1", "Ascend": "libascend_hal.so"}
WANTED = {
    "GPU": "CUDA 11.6 to 11.8 with CUDA_HOME, and cuDNN 8",
    "Ascend": "CANN 8.2 to 9.1 with its Python packages te and hccl",
}
_FIRST, _LAST = (11, 1), (11, 8)  # toolkits for which the wheel holds a plugin


def missing_libraries(device_target: str) -> list[str]:
    """What a device's back end needs and this machine lacks; the driver first."""
    if device_target == "GPU":
        toolkit = cuda_toolkit_problem()
        return [*_absent((DRIVERS["GPU"],)), *([toolkit] if toolkit else []), *_absent(CUDA)]
    if device_target == "Ascend":
        packages = [f"Python package {name}" for name in CANN_PACKAGES if importlib.util.find_spec(name) is None]
        return _absent((DRIVERS["Ascend"], *CANN)) + packages
    return []


def cuda_toolkit_problem() -> str | None:
    """What is wrong with CUDA_HOME; None: nothing. MindSpore asks its nvcc which of the wheel's plugins to load."""
    home = os.environ.get("CUDA_HOME")
    if not home:
        return "CUDA_HOME (unset)"
    version = nvcc_version(home)
    if version is None:
        return f"CUDA_HOME/bin/nvcc (CUDA_HOME is {home})"
    if not _FIRST <= version <= _LAST:
        return f"CUDA 11 (CUDA_HOME is {home}, which is {version[0]}.{version[1]})"
    return None


def nvcc_version(cuda_home: str) -> tuple[int, int] | None:
    """(11, 6) for CUDA 11.6; None where there is no nvcc that says so."""
    try:
        command = [os.path.join(cuda_home, "bin", "nvcc"), "--version"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"release (\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else None


def ascend_chip() -> str:
    """CANN's name of the chip. MindSpore knows it too, but only once the device has started."""
    name = ctypes.CDLL("libascendcl.so").aclrtGetSocName
    name.restype = ctypes.c_char_p
    return (name() or b"").decode()


def _absent(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not can_open(name)]


def can_open(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
