"""Shared by all tests: graph or PyNative mode on request, and models that hold the reference weights."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest


@pytest.fixture(params=["graph", "pynative"])
def mode(request):
    """Run a test in each of MindSpore's modes, and leave its own (PyNative) behind."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE)
    yield request.param
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def graph_mode():
    """Run a test in graph mode, and leave MindSpore's own (PyNative) behind."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture(autouse=True)
def forget_commands():
    """A command that runs in the tests' process decides whether graphs are compiled: not for the tests after it, which
    would take ten times as long, and would not run operator by operator as they say."""
    yield
    if "mindeit.runtime.device" in sys.modules:
        sys.modules["mindeit.runtime.device"]._graphs["wanted"] = None


ROOT = Path(__file__).parents[1]
# For facts that are not the graph's own, where other tests compile the same cells: compiling is most of a test's time.
graph_is_slow = pytest.mark.parametrize(
    "mode", [pytest.param("graph", marks=pytest.mark.slow), "pynative"], indirect=True
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of several workers one runs all tests that share a file's fixture, so that it is made once, and those go first:
    they are long, and single tests fill the end."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        if any(definitions[-1].scope == "module" for definitions in fixtures):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_collection_finish(session):
    """MindSpore looks for garbage before each compilation: not among what is imported by now, for that stays. And in
    PyNative mode its threads would spin while they wait for one another, which takes longer than what they compute."""
    # Else each worker would make every file's fixtures anew, in silence.
    for item in session.items if session.config.getoption("loadgroup", False) else ():
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError("pytest-xdist does not see groups with this pytest; pip install 'pytest<9.2'")
    gc.freeze()
    if "mindspore" in sys.modules:
        sys.modules["mindspore"].set_context(pynative_synchronize=True)


def pytest_sessionstart(session):
    """The operators for CPU are compiled before any process of a test would say that it does so."""
    from mindeit.kernels.native.library import library

    library()


def pytest_unconfigure():
    """MindSpore's cells count themselves when they go; at the interpreter's end that prints an error for each."""
    if "mindspore" in sys.modules:
        from mindspore import nn

        nn.Cell.__del__ = lambda self: None


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Sixty embedded digits as an image folder: ``val/<class>/*.png``."""
    from mindeit.data import open_source

    folder = tmp_path_factory.mktemp("digits")
    source = open_source("digits", None, "val")
    for index in range(60):
        place = folder / "val" / source.class_names[source.labels[index]]
        place.mkdir(parents=True, exist_ok=True)
        source.read(index).resize((40, 30)).save(place / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A two-block model of ten named classes for small images, so that it is compiled in a second or two."""
    from dataclasses import replace

    from mindeit.models.registry import build, spec
    from mindeit.runtime import device
    from mindeit.weights import checkpoint as checkpoints
    from mindeit.weights.card import card_for

    device.seed(3)
    name, path = "deit_mini_distilled_patch8_32", tmp_path_factory.mktemp("model") / "small.ckpt"
    names = tuple(str(digit) for digit in range(10))
    state = {p.name: p.asnumpy() for p in build(name, num_classes=10, image_size=32).get_parameters()}
    state["head.weight"] = 100 * state["head.weight"]  # far from even scores, so that the digits differ
    card = replace(card_for(spec(name), 10, 32, names), crop_pct=0.8)
    checkpoints.write(path, state, card)
    return path


@pytest.fixture(scope="session")
def predictor(checkpoint):
    """Of `checkpoint`: one for all tests, for it compiles."""
    import mindeit

    return mindeit.Predictor(checkpoint)


@pytest.fixture
def run(tmp_path):
    """Run a script of the project as a user does: ``run("validate.py", ...)`` -> the finished process."""

    def call(script: str, *arguments: object, ranks: int = 1, **variables: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        if ranks > 1:
            command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), *command]
        environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **variables}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return call
