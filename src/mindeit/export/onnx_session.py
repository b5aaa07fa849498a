"""onnxruntime's session of a file: on which processors it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindeit.errors import UserError

PROVIDERS = ("CPU", "CUDA", "CANN", "OpenVINO")
_NAME = "{}ExecutionProvider"


def open_session(path: Path, providers: Sequence[str]) -> Any:
    """``providers`` of `PROVIDERS`, the most wanted first; none is the CPU. A bad file raises onnxruntime's errors."""
    import onnxruntime  # optional: MindIR does without

    wanted = [_NAME.format(name) for name in providers or ("CPU",)]
    _check_available(providers, onnxruntime.get_available_providers())
    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(4 if providers else 3)  # what cannot be loaded is told below, in one line
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # no idle threads that take a core
    session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    loaded = session.get_providers()  # one that cannot be loaded is left out in silence
    for name in providers:
        if _NAME.format(name) not in loaded:
            raise UserError(
                f"{path}: onnxruntime has {name}, but could not load it (driver or libraries), and would run on "
                f"{_short(loaded)}; allowed: --providers {_short(loaded)}"
            )
    return session


def check_for_onnx(path: str, providers: Sequence[str]) -> None:
    if providers and not path.endswith(".onnx"):
        raise UserError(f"--providers {','.join(providers)} is for .onnx files, and has no effect on {path}")


def _check_available(providers: Sequence[str], available: Sequence[str]) -> None:
    for name in providers:
        if _NAME.format(name) not in available:
            raise UserError(
                f"--providers names {name}, which this onnxruntime does not have; it has {_short(available)} "
                "(onnxruntime-gpu, onnxruntime-cann and onnxruntime-openvino have others)"
            )


def _short(names: Sequence[str]) -> str:
    return ", ".join(name.removesuffix("ExecutionProvider") for name in names)
