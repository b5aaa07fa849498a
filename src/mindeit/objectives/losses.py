"""Losses as pure functions: logits float32 (B, C), targets float32 (B, C) that are already smoothed and mixed."""

from __future__ import annotations

from mindspore import Tensor, ops

REDUCTIONS = ("official", "batchmean")


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of ``-sum(weights * targets * log_softmax(logits))``; weights: one a class (C,), or None."""
    if weights is not None:
        targets = targets * weights
    return -ops.sum(targets * ops.log_softmax(logits, -1)) / logits.shape[0]


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, threshold: float | None = None, weights: Tensor | None = None
) -> Tensor:
    """Mean over batch and classes of the cross entropy of one yes-or-no question per class, times its weight.

    With a ``threshold``, targets above it become 1 and all others 0. The official code has it at 0, which makes every
    smoothed target a 1; anything above smoothing / C keeps the classes of the image (and of its partner) alone.
    """
    if threshold is not None:
        targets = (targets > threshold).astype(logits.dtype)
    losses = ops.softplus(logits) - logits * targets  # softplus(x) = -log(1 - sigmoid(x)), without overflow
    return ops.mean(losses if weights is None else losses * weights)


def soft_distillation(logits: Tensor, teacher: Tensor, tau: float, reduction: str = "official") -> Tensor:
    """Divergence KL(teacher || student) of the distributions at temperature ``tau``, times tau squared.

    "official" divides by batch times classes as losses.py of facebookresearch/deit does (1/C of the textbook's value,
    so alpha weighs it far less), "batchmean" by the batch.
    """
    own, wanted = ops.log_softmax(logits / tau, -1), ops.log_softmax(teacher / tau, -1)
    batch, classes = logits.shape
    count = batch * classes if reduction == "official" else batch
    return ops.sum(ops.exp(wanted) * (wanted - own)) * (tau * tau / count)


def hard_distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the class that the teacher scores highest."""
    return cross_entropy(logits, ops.one_hot(ops.argmax(teacher, -1), logits.shape[1]).astype(logits.dtype))
