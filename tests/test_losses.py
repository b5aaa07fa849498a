"""The losses against values and gradients of the official PyTorch code in float64."""

from __future__ import annotations

import json

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from reference import GOLDEN
from torch.nn import functional

from mindeit.objectives.losses import binary_cross_entropy, cross_entropy, hard_distillation, soft_distillation

NUMBERS = json.loads((GOLDEN / "losses.json").read_text())
ARRAYS = np.load(GOLDEN / "losses.npz")
CASES = {case["gradient"].removeprefix("grad/"): case for case in NUMBERS["distillation"]}
CLASSES = 10
TOLERANCE = 2e-6
WEIGHTS = np.linspace(0.2, 3, CLASSES, dtype=np.float32)


def smoothed(smoothing: float) -> np.ndarray:
    hot = np.eye(CLASSES, dtype=np.float32)[ARRAYS["labels"]]
    return (hot * (1 - smoothing) + smoothing / CLASSES).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


TARGETS = {"ce": smoothed(0), "ls0.1": smoothed(0.1), "soft_target": ARRAYS["soft_targets"]}


class Loss(nn.Cell):
    """The official combination of the pure functions."""

    def __init__(self, kind: str, alpha: float, tau: float) -> None:
        super().__init__()
        self.kind, self.alpha, self.tau = kind, alpha, tau

    def construct(self, logits, own, teacher, targets):
        base = cross_entropy(logits, targets)
        if self.kind == "none":
            return base
        if self.kind == "soft":
            distillation = soft_distillation(own, teacher, self.tau, "official")
        else:
            distillation = hard_distillation(own, teacher)
        return base * (1 - self.alpha) + distillation * self.alpha


def value_and_gradient(function, *arrays: np.ndarray) -> tuple[float, np.ndarray]:
    value, gradient = ms.value_and_grad(function, 0)(*map(Tensor, arrays))
    return float(value), gradient.asnumpy()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_distillation_and_its_gradients_match_the_official_code(case, mode):
    loss = Loss(case["kind"], case["alpha"], case["tau"])
    inputs = [Tensor(ARRAYS[name]) for name in ("logits", "logits_kd", "teacher")]
    value, gradients = ms.value_and_grad(loss, (0, 1))(*inputs, Tensor(TARGETS[case["base"]]))
    if case["value"] is not None:
        assert float(value) == pytest.approx(case["value"], rel=TOLERANCE)
    for gradient, name in zip(gradients, ("logits", "logits_kd")):
        assert np.abs(gradient.asnumpy() - ARRAYS[f"{case['gradient']}/{name}"]).max() < TOLERANCE


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("cross_entropy", smoothed(0)),
        ("label_smoothing_0.1", smoothed(0.1)),
        ("label_smoothing_0.3", smoothed(0.3)),
        ("soft_target", ARRAYS["soft_targets"]),
        ("soft_target_mix_smooth0", ARRAYS["mix_targets_smooth0"]),
        ("soft_target_mix_smooth0.1", ARRAYS["mix_targets_smooth0.1"]),
    ],
)
def test_cross_entropy_of_soft_targets_matches_the_official_code(name, targets, mode):
    value, _ = value_and_gradient(cross_entropy, ARRAYS["logits"], targets)
    assert value == pytest.approx(NUMBERS["criteria"][name], rel=TOLERANCE)


def with_threshold(threshold: float):
    def loss(logits, targets):
        return binary_cross_entropy(logits, targets, threshold)

    return loss


@pytest.mark.parametrize("smoothing", ["0", "0.1"])
def test_binary_cross_entropy_with_the_official_threshold_matches_the_official_code(smoothing, mode):
    targets = ARRAYS[f"mix_targets_smooth{smoothing}"]
    value, _ = value_and_gradient(with_threshold(0.0), ARRAYS["logits"], targets)
    assert value == pytest.approx(NUMBERS["criteria"][f"bce_of_mix_targets_gt0_smooth{smoothing}"], rel=TOLERANCE)


def test_a_threshold_above_the_smoothing_keeps_only_the_mixed_classes(mode):
    """Smoothed targets give the value of unsmoothed ones, where upstream turns every class into a 1."""
    plain, smooth = (ARRAYS[f"mix_targets_smooth{smoothing}"] for smoothing in ("0", "0.1"))
    value, gradient = value_and_gradient(with_threshold(0.05), ARRAYS["logits"], smooth)
    assert value == pytest.approx(NUMBERS["criteria"]["bce_of_mix_targets_gt0_smooth0"], rel=TOLERANCE)
    _, wanted = value_and_gradient(binary_cross_entropy, ARRAYS["logits"], (plain > 0).astype(np.float32))
    assert np.array_equal(gradient, wanted)


def weighted(criterion, *options):
    weights = Tensor(WEIGHTS)

    def loss(logits, targets):
        return criterion(logits, targets, *options, weights)

    return loss


def test_weights_of_classes_are_those_of_pytorch(mode):
    logits, targets = ARRAYS["logits"], ARRAYS["mix_targets_smooth0.1"]
    tensors = [torch.tensor(values) for values in (logits, targets, WEIGHTS)]
    for loss, official in (
        (weighted(cross_entropy), functional.cross_entropy(*tensors)),
        (weighted(binary_cross_entropy, None), functional.binary_cross_entropy_with_logits(*tensors)),
    ):
        value, _ = value_and_gradient(loss, logits, targets)
        assert value == pytest.approx(official.item(), rel=TOLERANCE)


@pytest.mark.parametrize("target", [0.0, 0.01, 1.0])
def test_binary_cross_entropy_is_exact_at_zero_and_far_out(target, mode):
    logits = np.array([[-1e4, -200, -90, -30, -5, -1, -1e-4, 0, 1e-4, 1, 5, 15, 19.9, 20.1, 30, 200, 1e4]], np.float32)
    value, gradient = value_and_gradient(binary_cross_entropy, logits, np.full_like(logits, target))
    truth = logits.astype(np.float64)
    assert value == pytest.approx((np.logaddexp(0, truth) - target * truth).mean(), rel=1e-6)
    sigmoid = np.exp(-np.logaddexp(0, -truth))
    assert np.abs(gradient * logits.size - (sigmoid - target)).max() < 1e-6


def test_cross_entropy_is_finite_for_huge_logits(mode):
    logits = np.array([[1e4, -1e4, 0.0], [0.0, 1e4, 1e4]], np.float32)
    value, gradient = value_and_gradient(cross_entropy, logits, np.array([[0, 1, 0], [0, 1, 0]], np.float32))
    assert value == pytest.approx((2e4 + np.log(2)) / 2)
    assert np.abs(gradient - np.array([[1, -1, 0], [0, -0.5, 0.5]]) / 2).max() < 1e-6


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_batchmean_is_the_official_soft_loss_times_the_classes(tau, mode):
    student, teacher = ARRAYS["logits_kd"], ARRAYS["teacher"]

    def official(logits, wanted):
        return soft_distillation(logits, wanted, tau, "official")

    def batchmean(logits, wanted):
        return soft_distillation(logits, wanted, tau, "batchmean")

    by_all, by_batch = (value_and_gradient(loss, student, teacher)[0] for loss in (official, batchmean))
    wanted, own = softmax(teacher / tau), softmax(student / tau)
    divergence = (wanted * np.log(wanted / own)).sum(1).mean() * tau**2
    assert by_batch == pytest.approx(divergence, rel=TOLERANCE)
    assert by_all == pytest.approx(divergence / CLASSES, rel=TOLERANCE)


def test_soft_distillation_of_equal_logits_is_zero(mode):
    def loss(logits, wanted):
        return soft_distillation(logits, wanted, 3.0)

    value, gradient = value_and_gradient(loss, ARRAYS["teacher"], ARRAYS["teacher"])
    assert abs(value) < 1e-7
    assert np.abs(gradient).max() < 1e-7


def test_hard_distillation_sees_only_the_teachers_first_choice(mode):
    teacher = ARRAYS["teacher"]
    squeezed = np.where(teacher == teacher.max(1, keepdims=True), np.float32(0.1), np.float32(0))
    values = [value_and_gradient(hard_distillation, ARRAYS["logits_kd"], wanted)[0] for wanted in (teacher, squeezed)]
    truth = -np.log(softmax(ARRAYS["logits_kd"])[np.arange(len(teacher)), teacher.argmax(1)]).mean()
    assert values == pytest.approx([truth, truth], rel=TOLERANCE)
