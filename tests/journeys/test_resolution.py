"""From weights of a low resolution to a deployed model of a higher one, for every configuration that goes that way."""

from __future__ import annotations

import json
import re

import pytest
from standins import (
    CONFIGS,
    command_of,
    data,
    model_of,
    official_files,
    official_weights,
    size_of,
    small_models,
    start_of,
    write_official,
    write_ours,
)
from training_runs import script

__all__ = ["data", "script", "official_files", "official_weights", "small_models"]
ON_CPU = ("--device_target", "CPU", "--num_parallel_workers", 1, "--batch_size", 4)
STEP = (*ON_CPU, "--epoch_size", 1)
FINE_TUNING = [name for name in CONFIGS if re.fullmatch(r".*_(384|224|21k_1k)_gpu", name)]
FAST = (("deit3_h_224_gpu", "our"), ("deit_b_384_gpu", "official"))
QUICK = ("--mode", "pynative", "--amp_level", "O0", "--recompute", False)  # nothing is compiled to train


@pytest.mark.parametrize(
    ("name", "kind", "mode"),
    [
        *((*one, QUICK) for one in FAST),
        *(pytest.param(name, kind, (), marks=pytest.mark.slow) for name in FINE_TUNING for kind in ("our", "official")),
    ],
    ids=lambda value: value if isinstance(value, str) else "pynative" if value else "as shipped",
)
def test_low_resolution_to_a_deployed_model_of_the_higher(name, kind, mode, data, official_weights, script, tmp_path):
    def run(command: str, *words: object) -> str:
        code, out, err = script(command, *words)
        assert code == 0, err
        return out + err

    (file, start), size = start_of(name), size_of(model_of(name))
    stage_one = f"{file.removesuffix('.ckpt')}_gpu"
    if kind == "official":
        file = write_official(tmp_path / "official.pth", *start)
    elif stage_one in CONFIGS:
        run("train", *command_of(stage_one, data), *STEP, *mode, "--ckpt_save_dir", "first")
        file = "first/last.ckpt"
    else:
        write_ours(tmp_path / file, *start)
    text = run("train", *command_of(name, data), *STEP, *mode, "--ckpt_path", file, "--ckpt_save_dir", "run")
    assert ("the position table is resized" in text) == (size_of(start) != size)

    labelled = ("--data_dir", data / "imagenet", "--num_parallel_workers", 1, "--batch_size", 4)
    run(
        "validate",
        "-c",
        CONFIGS[name],
        *labelled,
        "--device_target",
        "CPU",
        "--amp_level",
        "O0",
        "--ckpt_path",
        "run/last.ckpt",
        "--output",
        "validated.json",
    )
    image = next((data / "imagenet" / "val").rglob("*.png"))
    run("predict", "--ckpt_path", "run/last.ckpt", image, "--output", "predicted.json")
    run("export", "--ckpt_path", "run/last.ckpt", "--format", "ONNX", "--output", "model.onnx")
    run("validate", *labelled, "--ckpt_path", "model.onnx", "--output", "exported.json")

    validated, exported = (json.loads((tmp_path / f"{one}.json").read_text()) for one in ("validated", "exported"))
    assert validated["image_size"] == exported["image_size"] == size
    assert validated["images"] == exported["images"] == 4
    assert (validated["acc1"], validated["loss"]) == (exported["acc1"], pytest.approx(exported["loss"], abs=1e-4))
    [predicted] = json.loads((tmp_path / "predicted.json").read_text())
    assert {one["name"] for one in predicted["predictions"]} == set("abc")
