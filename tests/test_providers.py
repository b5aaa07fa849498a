"""--providers: on what onnxruntime runs a file, and that it does."""

from __future__ import annotations

import onnxruntime
import pytest
from exported_files import DEIT, export, write_checkpoint
from PIL import Image
from test_validate import run_main
from training_runs import one_block

from mindeit.errors import UserError
from mindeit.export.exported import Exported

HERE = ["AzureExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch, one_block(DEIT):
        checkpoint = write_checkpoint(made, DEIT, class_names=tuple("0123456789"))
        assert export(monkeypatch, checkpoint, made / "a.onnx", "--batch", "2") == 0
    Image.new("RGB", (40, 40)).save(made / "p.png")
    return made


def called(script: str, folder, name: str, monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    own = [str(folder / "p.png")] if script == "predict.py" else ["--dataset", "digits"]
    code = run_main(script, ["--ckpt_path", str(folder / name), *own, *words], monkeypatch)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize("script", ["predict.py", "validate.py"])
def test_the_cpu_may_be_named(script, folder, monkeypatch, capsys):
    code, plain, _ = called(script, folder, "a.onnx", monkeypatch, capsys)
    named, out, _ = called(script, folder, "a.onnx", monkeypatch, capsys, "--providers", "CPU")
    assert code == named == 0
    assert out.splitlines()[-1] == plain.splitlines()[-1]


@pytest.mark.parametrize("script", ["predict.py", "validate.py"])
def test_a_provider_that_is_not_there_is_one_line(script, folder, monkeypatch, capsys):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: HERE)
    code, _, err = called(script, folder, "a.onnx", monkeypatch, capsys, "--providers", "CPU,CUDA")
    assert code == 2
    assert err == (
        "error: --providers names CUDA, which this onnxruntime does not have; it has Azure, CPU (onnxruntime-gpu, "
        "onnxruntime-cann and onnxruntime-openvino have others)\n"
    )


def test_a_provider_that_cannot_be_loaded_is_no_silent_cpu(folder, monkeypatch, capfd):
    """As where onnxruntime-gpu meets no driver: the session runs on the CPU and says nothing."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", *HERE])
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(UserError) as caught:
        Exported(folder / "a.onnx", providers=("CUDA", "CPU"))
    assert str(caught.value) == (
        f"{folder / 'a.onnx'}: onnxruntime has CUDA, but could not load it (driver or libraries), and would run on "
        "CPU; allowed: --providers CPU"
    )


def test_what_asks_for_a_device_runs_whole_batches_on_it(folder, monkeypatch):
    """Pieces suit the caches of a CPU. The session here is the CPU's, under another name."""
    asked, own = [], onnxruntime.InferenceSession

    class Renamed:
        def __init__(self, path, options, providers):
            asked.append(providers)
            self._own = own(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def __getattr__(self, name):
            return getattr(self._own, name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Renamed)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", *HERE])
    assert Exported(folder / "a.onnx", providers=("CUDA", "CPU"))._piece is None
    assert Exported(folder / "a.onnx")._piece == 98
    assert asked == [["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]]


BAD_INPUT = [
    (f"{DEIT}.ckpt", "CPU", "--providers CPU is for .onnx files, and has no effect on {path}"),
    ("a.onnx", "TPU", "command line: --providers is '[TPU]', allowed: CPU, CUDA, CANN or OpenVINO, several of them"),
]


@pytest.mark.parametrize("script", ["predict.py", "validate.py"])
@pytest.mark.parametrize(("name", "providers", "message"), BAD_INPUT)
def test_bad_input_is_one_line(script, name, providers, message, folder, monkeypatch, capsys):
    code, _, err = called(script, folder, name, monkeypatch, capsys, "--providers", providers)
    assert code == 2
    assert err.startswith(f"error: {message.format(path=folder / name)}")
    assert err.count("\n") == 1
