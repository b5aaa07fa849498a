"""Training runs small enough to be watched: images to learn from, real processes, and what they leave behind."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from mindeit.cli import train
from mindeit.data.digits import DigitsSource
from mindeit.factory import training
from mindeit.models import plugins
from mindeit.models.registry import build, spec
from mindeit.models.specs import CATALOGUE
from mindeit.training import curves, run_checkpoints
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import card_for

STUDENT = "deit_mini_distilled_patch8_32"
SMALL = ("--model", STUDENT, "--batch_size", 8, "--warmup_epochs", 0, "--log_interval", 1)
ONE_BLOCK = """
from mindeit import ModelSpec, register_model
shape = {"embed_dim": 128, "depth": 1, "num_heads": 4, "patch_size": 8}
plain = {"parallel": False, "init_scale": None, "hmlp_stem": False}
register_model(ModelSpec("one_block", "deit3", image_size=32, variant={**shape, **plain}))
register_model(ModelSpec("one_block_distilled", "deit", image_size=32, variant={**shape, "distilled": True}))
"""
TIMINGS = ("seconds", "images_per_second", "data_wait")


def write_images(folder: Path, *, train: int = 64, val: int = 13, classes: str = "abc") -> Path:
    """An image folder of noise with a cast of colour; an uneven number of images for evaluation."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            name = classes[index % len(classes)]
            pixels = numbers.integers(0, 120, (32, 32, 3))
            pixels[:, :, index % len(classes) % 3] += 100
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index:02d}.png")
    return folder


def write_model(path: Path, name: str, classes: int) -> Path:
    """Fresh weights of a model."""
    state = {one.name: one.asnumpy() for one in build(name, num_classes=classes).get_parameters()}
    checkpoints.write(path, state, card_for(spec(name), classes))
    return path


def start(log: Path, *arguments: object, ranks: int = 1, rank_1: tuple = (), **variables: str) -> subprocess.Popen:
    """``train.py`` with both outputs in ``log``, in which folder it works too; ``rank_1`` are its own arguments."""
    command = [sys.executable, str(ROOT / "train.py"), "--report", "False", *map(str, arguments)]
    if rank_1:
        command = ["-n", "1", *command, ":", "-n", "1", *command, *map(str, rank_1)]
    elif ranks > 1:
        command = ["-n", str(ranks), *command]
    if ranks > 1:
        command.insert(0, str(Path(sys.executable).parent / "mpirun"))
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    with open(log, "w") as output:
        return subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, **root, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # shells ignore it in "cmd &"
        )


def wait_for(text: str, log: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 300
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.005)


def finish(log: Path, *arguments: object, code: int = 0, **others: object) -> str:
    """Run to the end; what was printed."""
    process = start(log, *arguments, **others)
    assert process.wait(300) == code, log.read_text()
    return log.read_text()


@pytest.fixture(scope="module", autouse=True)
def few_digits() -> Iterator[None]:
    """Each fourth of them, 360 to train and 90 to evaluate. Imported, it holds for a whole file of tests."""

    def open_few(self: DigitsSource, train: bool, open_all=DigitsSource.__init__) -> None:
        open_all(self, train)
        self._pixels, self.labels = self._pixels[::4], self.labels[::4]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitsSource, "__init__", open_few)
        yield


@contextmanager
def one_block(*names: str) -> Iterator[None]:
    """These models, by default the student, with a single block: half as much is compiled where depth is not the fact.
    In this process only."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names or (STUDENT,):
            row = CATALOGUE[name]
            patch.setitem(CATALOGUE, name, replace(row, variant={**row.variant, "depth": 1}))
        yield


def no_drawing(*_: object) -> None:
    """For `curves.draw` and the report, which take as long as a few steps; test_history and test_report draw."""


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(curves, "draw", no_drawing)
    patch.setattr(training, "write_report", no_drawing)


@contextmanager
def plugin_models(folder: Path) -> Iterator[Path]:
    """A plugin that registers ``one_block`` and ``one_block_distilled``: small in other processes, too. This process
    forgets them in the end."""
    file, known = folder / "one_block.py", set(CATALOGUE)
    file.write_text(ONE_BLOCK)
    try:
        plugins.load(str(file))
        yield file
    finally:
        for name in set(CATALOGUE) - known:
            del CATALOGUE[name]


def train_here(*arguments: object, drawn: bool = False) -> str:
    """``train.py`` to its end in this process, for fixtures of a whole file: what was printed."""
    import mindspore as ms

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        if not drawn:
            without_pictures(patch)
        with pytest.raises(SystemExit) as ended:
            train.main()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert ended.value.code == 0, printed.getvalue()
    return printed.getvalue()


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Of model, average and optimizer."""
    state = run_checkpoints.load(path)
    parts = {"": state.model, "ema/": state.ema or {}, "optimizer/": state.optimizer}
    return {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}


def history(folder: Path) -> list[dict]:
    """The records without what the clock decides."""
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = arrays(one / "last.ckpt"), arrays(other / "last.ckpt")
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []
    assert history(one) == history(other)


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """Call a script's ``main`` in this process, which spares its start: -> (exit code, stdout, stderr).
    Nothing is drawn."""
    import mindspore as ms

    def call(script: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.syspath_prepend(str(ROOT))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        without_pictures(monkeypatch)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(script).main()
        return (ended.value.code, *capsys.readouterr())

    yield call
    ms.set_context(mode=ms.PYNATIVE_MODE)
