"""A teacher learns, a student follows it hard and softly, goes on with it, and is PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import ROOT
from training_runs import few_digits, history, one_block, script

import mindeit
from mindeit.torch_reference.build import build_reference
from mindeit.weights.torch_files import read_official

__all__ = ["few_digits", "script"]
CONFIGS = ROOT / "configs"
QUICK = ("--mode", "pynative", "--epoch_size", 1, "--warmup_epochs", 0, "--num_parallel_workers", 1, "--ema", False)


@pytest.fixture(scope="module", autouse=True)
def small_student() -> Iterator[None]:
    with one_block():
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher")


@pytest.mark.parametrize("kind", ["hard", pytest.param("soft", marks=pytest.mark.slow)])
def test_teacher_to_student_to_fine_tuning_to_pytorch(kind, teacher, script, tmp_path):
    def train(*words: object) -> None:
        code, _, err = script("train", *words)
        assert code == 0, err

    if not (teacher / "best.ckpt").exists():
        train("-c", CONFIGS / "regnety_digits_cpu.yaml", *QUICK, "--batch_size", 90, "--ckpt_save_dir", teacher)
    student = (
        "-c",
        CONFIGS / "deit_digits_cpu.yaml",
        *QUICK,
        "--batch_size",
        90,
        "--distillation_type",
        kind,
        "--teacher_ckpt_path",
        teacher / "best.ckpt",
    )
    train(*student, "--ckpt_save_dir", "student")
    train(*student, "--ckpt_path", "student/last.ckpt", "--image_size", 32, "--ckpt_save_dir", "tuned")
    [before], [after] = history(tmp_path / "student"), history(tmp_path / "tuned")
    assert after["train_loss"] < before["train_loss"]  # it went on from there

    code, _, err = script("convert_pt2ms", "--input", "tuned/last.ckpt", "--output", "back.pth", "--to_pt", "--verify")
    assert code == 0, err
    model, card = mindeit.load_model(tmp_path / "tuned" / "last.ckpt")
    assert (card.model, card.image_size, card.num_classes) == ("deit_mini_distilled_patch8_32", 32, 10)
    reference = build_reference(card.model, num_classes=10, image_size=32)
    reference.load_state_dict(
        {name: torch.from_numpy(value) for name, value in read_official(tmp_path / "back.pth").items()}
    )
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    from mindspore import Tensor

    ours = model.set_train(False)(Tensor(images)).asnumpy()
    with torch.no_grad():
        np.testing.assert_allclose(ours, reference(torch.from_numpy(images)).numpy(), atol=1e-4)
