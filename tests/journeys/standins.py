"""Small models under the official names, small data, and the commands that the shipped files' heads tell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from small import SMALL_ROWS
from training_runs import write_images

from mindeit.models.registry import build, spec
from mindeit.models.spec import ModelSpec
from mindeit.models.specs import CATALOGUE
from mindeit.torch_reference.build import build_reference
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import card_for

CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
CLASSES = 3  # of the images
Start = tuple[str, "int | None"]  # a model's name and image size; None: its own


@pytest.fixture(scope="module", autouse=True)
def small_models():
    """Imported, it holds for a whole file of tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, row in SMALL_ROWS.items():
            patch.setitem(CATALOGUE, name, row)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """What stands in for /data: of each set four or five images to train on, so that a batch of four is an epoch."""
    folder = tmp_path_factory.mktemp("data")
    write_images(folder / "imagenet", train=4, val=4, classes="abc"[:CLASSES])
    for other in ("imagenet21k", "flowers"):
        (folder / other).symlink_to(folder / "imagenet")
    numbers, pixels = np.random.default_rng(0), 3 * 32 * 32
    for name, label_bytes, files in (
        ("cifar10", 1, [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]),
        ("cifar100", 2, ["train"] * 4 + ["test"]),
    ):
        (folder / name).mkdir()
        for number, file in enumerate(files):
            with (folder / name / f"{file}.bin").open("ab") as rows:
                rows.write(bytes([number] * label_bytes) + numbers.integers(0, 256, pixels, np.uint8).tobytes())
    for year in (2018, 2019):
        place = folder / f"inat{year}"
        place.mkdir()
        (place / "images").symlink_to(folder / "imagenet")
        for split in ("train", "val"):
            names = sorted(
                path.relative_to(folder / "imagenet").as_posix()
                for path in (folder / "imagenet" / split).rglob("*.png")
            )
            (place / f"{split}{year}.json").write_text(
                json.dumps(
                    {
                        "images": [{"id": number, "file_name": f"images/{name}"} for number, name in enumerate(names)],
                        "annotations": [
                            {"image_id": number, "category_id": 10 + "abc".index(name.split("/")[1])}
                            for number, name in enumerate(names)
                        ],
                        "categories": [{"id": 10 + number, "name": letter} for number, letter in enumerate("abc")],
                    }
                )
            )
    return folder


@pytest.fixture(scope="module")
def official_files(tmp_path_factory, small_models) -> Path:
    """What `pretrained` and a teacher without a path find in the cache: the models' converted files."""
    home = tmp_path_factory.mktemp("official") / "home"
    fill_cache(home, lambda row: CLASSES if row.family == "regnet" else 1000)  # a teacher's are the data's
    return home


@pytest.fixture
def official_weights(official_files, monkeypatch) -> None:
    monkeypatch.setenv("MINDEIT_HOME", str(official_files))


def fill_cache(home: Path, classes: Callable[[ModelSpec], int]) -> None:
    home.mkdir()
    for name, row in CATALOGUE.items():
        if row.family in ("deit", "regnet") and row.published:
            write_ours(home / f"{Path(row.published.file).stem}.ckpt", name, classes=classes(row))


def write_ours(path: Path, name: str, image_size: int | None = None, classes: int = CLASSES) -> Path:
    """Fresh weights, as a run leaves them."""
    model = build(name, num_classes=classes, image_size=image_size)
    state = {one.name: one.asnumpy() for one in model.get_parameters()}
    checkpoints.write(path, state, card_for(spec(name), classes, image_size))
    return path


def write_official(path: Path, name: str, image_size: int | None = None, classes: int = CLASSES) -> Path:
    """Fresh weights, as the authors publish them."""
    size = image_size or spec(name).image_size
    torch.save({"model": build_reference(name, num_classes=classes, image_size=size).state_dict()}, path)
    return path


def model_of(name: str) -> Start:
    """What a shipped file names, or the weights that its head starts from."""
    text = CONFIGS[name].read_text()
    if not re.search("^model:", text, re.M):
        return model_of(re.search(r"--ckpt_path (\w+)\.ckpt", text)[1] + "_gpu")
    size = re.search(r"^image_size: (\d+)", text, re.M)
    return re.search(r"^model: (\S+)", text, re.M)[1], int(size[1]) if size else None


def size_of(start: Start) -> int:
    return start[1] or spec(start[0]).image_size


def command_of(name: str, data: Path) -> list[str]:
    """What the head says to train with, after the script's name and for one process."""
    head = re.sub(r"\\\n# *", "", CONFIGS[name].read_text())
    words = shlex.split(re.search(r"^# (?:Train|Tune): *(.*)$", head, re.M)[1].replace("/data/", f"{data}/"))
    words = words[words.index("train.py") + 1 :]
    words[words.index("-c") + 1] = str(CONFIGS[name])
    return [*words, "--distributed", "False"]


def start_of(name: str) -> tuple[str, Start] | None:
    """File, model and size of the weights that the head starts from; None: from nothing, or from official ones."""
    found = re.search(r"--ckpt_path (\w+)\.ckpt", CONFIGS[name].read_text())
    if not found:
        return None
    if f"{found[1]}_gpu" in CONFIGS:
        return f"{found[1]}.ckpt", model_of(f"{found[1]}_gpu")
    model, size = found[1].rsplit("_", 1)  # of cait_xs24_224 and cait_s36_224: no shipped file trains them
    assert model_of(name)[0].lower() == model
    return f"{found[1]}.ckpt", (model_of(name)[0], int(size))
