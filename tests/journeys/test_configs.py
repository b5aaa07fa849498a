"""Every shipped configuration, by its head's command, trains from the weights that the head tells to start from."""

from __future__ import annotations

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
    write_ours,
)
from training_runs import script

from mindeit.weights import checkpoint as checkpoints

__all__ = ["data", "script", "official_files", "official_weights", "small_models"]
ONE_STEP = ("--device_target", "CPU", "--epoch_size", 1, "--num_parallel_workers", 1)
# A few of each kind, without compiling. float32, for in halves MindSpore's PyNative mode mistakes CaiT's gradients.
FAST = (
    "deit_b_384_gpu",
    "deit_b_distilled_384_gpu",
    "deit_t_distilled_cpu",
    "deit_b_cifar100_gpu",
    "deit_b_inat2018_gpu",
    "cait_xs24_384_gpu",
    "deit3_h_224_gpu",
    "deit3_s_21k_1k_gpu",
    "deit3_s_cosub_gpu",
    "resmlp_24_gpu",
    "patchconvnet_s60_gpu",
)
ALL = [name for name in CONFIGS if not name.endswith("_ascend")]  # which differ from _gpu by a word


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, ("--mode", "pynative", "--amp_level", "O0")) for name in FAST),
        *(pytest.param(name, (), marks=pytest.mark.slow) for name in ALL),
    ],
    ids=lambda value: value if isinstance(value, str) else "pynative" if value else "as shipped",
)
def test_a_shipped_configuration_takes_a_step(name, mode, data, official_weights, script, tmp_path):
    start = start_of(name)
    if start:
        write_ours(tmp_path / start[0], *start[1], classes=5)
    if name == "deit_digits_cpu":
        (tmp_path / "outputs" / "digits_teacher").mkdir(parents=True)
        write_ours(tmp_path / "outputs" / "digits_teacher" / "best.ckpt", "regnety_mini_32", classes=10)
    batches = re.search(r"^gradient_accumulation_steps: (\d+)", CONFIGS[name].read_text(), re.M)
    batch = 1437 if "digits" in name else 4 // int(batches[1] if batches else 1)  # all there is
    code, _, err = script("train", *command_of(name, data), *ONE_STEP, *mode, "--batch_size", batch,
                        "--ckpt_save_dir", "run")  # fmt: skip
    assert code == 0, err
    named = model_of(name)
    record, (_, card) = (
        checkpoints.read_record(tmp_path / "run" / "last.ckpt"),
        checkpoints.read(tmp_path / "run" / "last.ckpt"),
    )
    assert (card.model, card.image_size) == (named[0], size_of(named))
    assert record["step"] in (0, 1)  # of halves, the first may overflow
    if start:
        assert "the head starts anew" in err
    if start and size_of(start[1]) != card.image_size and "pos_embed" in checkpoints.read(tmp_path / start[0])[0]:
        assert "the position table is resized from" in err
