"""What the GPU's and Ascend's back ends need, on folders and packages made up for the test."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from mindeit.errors import UserError
from mindeit.runtime import device, environment, libraries

NO_CUDA = ", ".join(
    (
        "libcudart.so.11.0",
        "libcublas.so.11",
        "libcudnn.so.8",
        "libcufft.so.10",
        "libcurand.so.10",
        "libcusolver.so.11",
        "libcusparse.so.11",
        "libnvrtc.so.11.2",
    )
)


@pytest.fixture
def cuda_home(tmp_path, monkeypatch):
    """Makes a folder whose nvcc says it is of ``release``, and names it by CUDA_HOME."""

    def make(release: str) -> str:
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.parent.mkdir(exist_ok=True)
        nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
        nvcc.chmod(0o755)
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        return str(tmp_path)

    return make


@pytest.mark.parametrize("release", ["11.1", "11.5", "11.6", "11.8"])
def test_toolkits_that_the_wheel_has_a_plugin_for_are_taken(release, cuda_home):
    cuda_home(release)
    assert libraries.cuda_toolkit_problem() is None


@pytest.mark.parametrize("release", ["10.2", "11.0", "11.9", "12.4"])
def test_other_toolkits_are_named_with_their_version(release, cuda_home):
    home = cuda_home(release)
    assert libraries.cuda_toolkit_problem() == f"CUDA 11 (CUDA_HOME is {home}, which is {release})"


def test_a_home_without_nvcc_or_none_at_all_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert libraries.cuda_toolkit_problem() == f"CUDA_HOME/bin/nvcc (CUDA_HOME is {tmp_path})"
    monkeypatch.delenv("CUDA_HOME")
    assert libraries.cuda_toolkit_problem() == "CUDA_HOME (unset)"


def test_a_gpu_s_line_says_what_is_missing_and_wanted(cuda_home, monkeypatch):
    monkeypatch.setattr(libraries, "can_open", lambda name: name == "libcuda.so.1")
    home = cuda_home("12.2")
    with pytest.raises(UserError) as refused:
        device.setup("GPU")
    assert str(refused.value) == (
        f"device GPU is not available: missing CUDA 11 (CUDA_HOME is {home}, which is 12.2), {NO_CUDA} "
        "(wanted: CUDA 11.6 to 11.8 with CUDA_HOME, and cuDNN 8); --device_target CPU works anywhere"
    )


def test_nothing_is_missing_where_all_libraries_open(cuda_home, monkeypatch):
    monkeypatch.setattr(libraries, "can_open", lambda name: True)
    cuda_home("11.6")
    assert libraries.missing_libraries("GPU") == []
    assert libraries.missing_libraries("CPU") == []


def test_ascend_needs_two_python_packages(monkeypatch):
    monkeypatch.setattr(libraries, "can_open", lambda name: name != "libhccl.so")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "te" else object())
    assert libraries.missing_libraries("Ascend") == ["libhccl.so", "Python package te"]


@pytest.mark.parametrize("chip", ["Ascend910A", "Ascend910ProB", "Ascend910B", "Ascend310P3"])
def test_old_ascends_are_refused(chip):
    with pytest.raises(UserError) as refused:
        device.check_ascend(chip)
    assert str(refused.value) == f"device Ascend is {chip}; allowed: Ascend910B1 to B4 (Atlas A2) and newer"


@pytest.mark.parametrize("chip", ["Ascend910B2", "Ascend910B4-1", "Ascend910_9391", "Ascend950PR", ""])
def test_newer_and_unknown_ascends_are_taken(chip):
    device.check_ascend(chip)


def test_the_environment_lists_what_was_found_and_missing(cuda_home, monkeypatch):
    monkeypatch.setattr(libraries, "can_open", lambda name: name != "libcudnn.so.8")
    home = cuda_home("11.6")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
    lines = environment.report().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("GPU: "))
    found = "libcuda.so.1, " + NO_CUDA.replace("libcudnn.so.8, ", "")
    assert lines[start + 1 : start + 4] == [f"  found: {found}", "  missing: libcudnn.so.8", "  toolkit: CUDA 11.6"]
    assert any(line.startswith("paths: ") and f"CUDA_HOME={home}" in line for line in lines)
    assert any(line.startswith("launcher: ") and "OMPI_COMM_WORLD_SIZE=8" in line for line in lines)


def test_the_environment_tells_cann_s_version(tmp_path, monkeypatch):
    (tmp_path / "compiler").mkdir()
    (tmp_path / "compiler" / "version.info").write_text("Version=8.2.0\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    assert "  toolkit: CANN Version=8.2.0" in environment.report().splitlines()


def test_the_environment_is_told_where_mindspore_does_not_load(tmp_path):
    (tmp_path / "mindspore.py").write_text("raise ImportError('libascendcl.so: cannot open shared object file')\n")
    (tmp_path / "torch.py").write_text("raise ImportError\n")
    paths = os.pathsep.join((str(tmp_path), str(ROOT / "src")))
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "env.py")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout.startswith(f"Python: {sys.version.split()[0]}\nmindeit: ")
    assert {line.split(":")[0] for line in done.stdout.splitlines()} >= {
        "mindspore",
        "numpy",
        "mindcv",
        "torch",
        "mpi4py",
        "OS",
        "CPU",
        "GPU",
        "Ascend",
        "launcher",
    }
