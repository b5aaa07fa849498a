"""Trackers besides TensorBoard, by stand-ins for their packages and, where these are installed, offline by them."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mindeit.errors import UserError
from mindeit.training import trackers
from mindeit.training.history import History

SERVICES = ("wandb", "swanlab")


class Run:
    """What a service was told: (step, figures)."""

    def __init__(self, **options) -> None:
        self.options, self.logged, self.finished = options, [], False

    def log(self, figures: dict, step: int) -> None:
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def service(request, monkeypatch):
    """A stand-in for the package ``request.param``; ``runs`` are those that were begun."""
    runs: list[Run] = []

    def init(**options) -> Run:
        runs.append(Run(**options))
        return runs[-1]

    stand_in = ModuleType(request.param)
    vars(stand_in).update(init=init, Settings=lambda **given: given)
    monkeypatch.setitem(sys.modules, request.param, stand_in)
    for name in SERVICES:
        monkeypatch.delenv(f"{name.upper()}_PROJECT", raising=False)
    return SimpleNamespace(name=request.param, runs=runs, module=stand_in)


def trained(folder: Path, tracker: str, epochs: range, config: dict | None = None) -> None:
    history = History(folder, trackers=(tracker,), epochs=epochs.start - 1)
    history.begin(config or {})
    for epoch in epochs:
        history.add({"epoch": epoch, "train_loss": 7 - epoch / 8, "val_loss": None})
    history.close()


@pytest.mark.parametrize("service", SERVICES, indirect=True)
def test_each_epoch_is_logged_once_with_the_epoch_as_its_step(service, tmp_path):
    trained(tmp_path / "deit_t", service.name, range(1, 3), {"lr": 5e-4, "scale": (0.08, 1.0)})
    [run] = service.runs
    assert run.logged == [(1, {"train_loss": 6.875}), (2, {"train_loss": 6.75})]
    assert run.finished
    assert (run.options["project"], run.options["name"]) == ("mindeit", "deit_t")
    assert run.options["config"] == {"lr": 5e-4, "scale": (0.08, 1.0)}
    assert len((tmp_path / "deit_t" / "history.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("service", SERVICES, indirect=True)
def test_a_resumed_run_goes_on_under_its_name_and_a_new_one_does_not(service, tmp_path):
    for epochs in (range(1, 3), range(3, 4), range(1, 2)):
        trained(tmp_path, service.name, epochs)
    first, resumed, fresh = (run.options["id"] for run in service.runs)
    assert first == resumed != fresh
    assert [run.options["resume"] for run in service.runs] == ["allow"] * 3


@pytest.mark.parametrize("service", SERVICES, indirect=True)
def test_what_a_service_refuses_is_one_line_before_the_first_step(service, tmp_path):
    def init(**options):
        raise RuntimeError("no key\nlog in first")

    service.module.init = init
    history = History(tmp_path, trackers=(service.name,))
    with pytest.raises(UserError) as caught:
        history.begin({})
    assert str(caught.value) == f"tracker {service.name} cannot begin: RuntimeError: no key"


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_several_trackers_get_the_same_and_each_but_once(service, tmp_path):
    history = History(tmp_path, trackers=("wandb", "tensorboard", "wandb"))
    history.begin({})
    history.add({"epoch": 1, "lr": 0.5})
    history.close()
    assert [run.logged for run in service.runs] == [[(1, {"lr": 0.5})]]
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"lr" in events.read_bytes()


@pytest.mark.parametrize("name", SERVICES)
def test_a_package_that_is_not_installed_is_named_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"^tracker {name} needs {name} \(pip install {name}\): ") as caught:
        History(tmp_path, trackers=(name,))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "written"), [("wandb", b"6.875"), ("swanlab", struct.pack("<d", 6.875))])
def test_the_package_itself_keeps_the_figures_offline(name, written, tmp_path, monkeypatch):
    if pytest.importorskip(name, reason=f"{name} is not installed (pip install {name})").__file__ is None:
        pytest.skip(f"{name} is a folder here, not the package")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(f"{name.upper()}_MODE", "offline")
    folder = tmp_path / "run"
    trained(folder, name, range(1, 2), {"lr": 5e-4, "scale": (0.08, 1.0), "model": None})
    trained(folder, name, range(2, 3))
    run_id = (folder / name / "run_id").read_text()
    files = sorted(folder.rglob(f"run-{run_id}.{name}"), key=lambda path: path.stat().st_mtime)
    assert len(files) == 2  # a sitting each, of one run
    assert b"train_loss" in files[0].read_bytes()
    assert written in files[0].read_bytes()
    assert written not in files[1].read_bytes()


def test_a_folder_that_an_offline_run_left_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    if importlib.util.find_spec("wandb").origin is not None:
        pytest.skip("wandb itself is installed")
    with pytest.raises(
        UserError, match=r"tracker wandb needs wandb \(pip install wandb\): there is only a folder wandb"
    ):
        trackers.build(["wandb"], tmp_path)
