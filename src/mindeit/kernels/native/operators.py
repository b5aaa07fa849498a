"""The fused operators as MindSpore sees them: shapes of their outputs, and their gradients.

Each is float32 and checks its tensors; a wrong one ends the step with an error. Activations that are cheap to compute
again are not kept for the backward pass (`_again`).
"""

from __future__ import annotations

import functools
from typing import Any, Callable

import mindspore as ms
from mindspore import Tensor, ops

from mindeit.kernels.native.library import library
from mindeit.runtime import device

Bprop = Callable[..., tuple]


def available() -> bool:
    return device.target() == "CPU" and library().path is not None


def multiplies() -> bool:
    return available() and library().multiplies


def _custom(name: str, shapes: Callable[..., Any], dtypes: Callable[..., Any], bprop: Bprop | None = None) -> Any:
    return ops.Custom(f"{library().path}:{name}", shapes, dtypes, "aot", bprop)


def _again(operator: Any) -> Any:
    """Graphs compute its output again in the backward pass. Without a graph there is nothing to tell that to."""
    if ms.get_context("mode") == ms.GRAPH_MODE:
        operator.recompute()
    return operator


@functools.cache
def layer_norm() -> Any:
    """(rows, gamma, beta, epsilon (1,)) -> rows."""
    grad = _custom("layer_norm_grad", lambda x, gamma, dy, eps: (x, [2, x[1]]), lambda x, gamma, dy, eps: (x, x))

    def bprop(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor, out: Tensor, dout: Tensor) -> tuple:
        dx, sums = grad(x, gamma, dout, epsilon)
        return dx, sums[0], sums[1], ops.zeros_like(epsilon)

    return _again(_custom("layer_norm", lambda x, gamma, beta, eps: x, lambda x, gamma, beta, eps: x, bprop))


@functools.cache
def bias_gelu() -> Any:
    """(rows, bias) -> GELU of their sum, exact."""
    grad = _custom("bias_gelu_grad", lambda x, bias, dy: (x, bias), lambda x, bias, dy: (x, x))

    def bprop(x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return grad(x, bias, dout)

    return _again(_custom("bias_gelu", lambda x, bias: x, lambda x, bias: x, bprop))


@functools.cache
def column_sums() -> Any:
    """Rows (n, width) -> (width,). Has no gradient: it is one."""
    return _custom("column_sums", lambda x: [x[1]], lambda x: x)


@functools.cache
def residual(has_gain: bool) -> Any:
    """x, branch (batch, tokens, dim), gain (dim,), factors (batch,) -> x + branch * gain * factors."""
    grad = _custom("residual_grad", lambda branch, gain, *rest: (branch, gain), lambda branch, *rest: (branch, branch))

    def bprop(x: Tensor, branch: Tensor, gain: Tensor, factors: Tensor, out: Tensor, dout: Tensor) -> tuple:
        dbranch, dgain = grad(branch, gain, factors, dout)
        return dout, dbranch, dgain, ops.zeros_like(factors)

    def bprop_without_gain(
        x: Tensor, branch: Tensor, gain: Tensor, factors: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        dbranch, _ = grad(dout, gain, factors, dout)  # the branch itself only matters for the gain: need not be kept
        return dout, dbranch, ops.zeros_like(gain), ops.zeros_like(factors)

    return _custom("residual", lambda x, *rest: x, lambda x, *rest: x, bprop if has_gain else bprop_without_gain)


@functools.cache
def attention(bfloat16: bool) -> Any:
    """Query, key and value (batch, tokens, 3, heads, head_dim) -> mixed values (batch, tokens, dim).

    ``bfloat16``: so it multiplies where the CPU has AMX.
    """
    grad = _custom(_in(bfloat16, "attention_grad"), lambda qkv, dy: qkv, lambda qkv, dy: qkv)

    def bprop(qkv: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return (grad(qkv, dout),)

    return _custom(_in(bfloat16, "attention"), _mixed, lambda qkv: qkv, bprop)


@functools.cache
def talking_heads(bfloat16: bool) -> Any:
    """The same, with a weight (heads, heads) and a bias (heads,) by which heads exchange scores before the softmax, and
    two more by which they exchange probabilities after it. The first bias changes nothing."""
    name = _in(bfloat16, "talking_heads")
    grad = _custom(f"{name}_grad", lambda qkv, w, _, *rest: (qkv, w, *rest[:2]), lambda qkv, *rest: (qkv,) * 4)

    def bprop(
        qkv: Tensor, before: Tensor, its_bias: Tensor, after: Tensor, bias: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        dqkv, dbefore, dafter, dbias = grad(qkv, before, its_bias, after, bias, dout)
        return dqkv, dbefore, ops.zeros_like(its_bias), dafter, dbias

    return _custom(name, _mixed, lambda qkv, *rest: qkv, bprop)


def _mixed(qkv: list[int], *rest: list[int]) -> list[int]:
    return [qkv[0], qkv[1], qkv[3] * qkv[4]]


@functools.cache
def depthwise_gelu() -> Any:
    """Places of a square (batch, n, dim), weight (dim, 1, 3, 3), bias (dim,) -> GELU of the convolution, as the first.

    Each channel for itself, zeros around the square.
    """
    grad = _custom("depthwise_gelu_grad", lambda x, weight, bias, dy: (x, weight, bias), lambda x, *rest: (x, x, x))

    def bprop(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return grad(x, weight, bias, dout)

    return _again(_custom("depthwise_gelu", lambda x, *rest: x, lambda x, *rest: x, bprop))


@functools.cache
def convolution(stride: int, bfloat16: bool) -> Any:
    """Images (batch, channels, height, width), weight (out, channels of a group, k, k) -> (batch, out, ...), padded by
    half the kernel. ``stride``: 1 or 2."""
    name = _in(bfloat16, "convolution")
    images_grad = _custom(f"{name}_grad", lambda images, *rest: images, lambda images, *rest: images)
    weight_grad = _custom(f"{name}_weight_grad", lambda images, weight, dy: weight, lambda images, *rest: images)

    def bprop(images: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return images_grad(images, weight, dout), weight_grad(images, weight, dout)

    def shape(images: list[int], weight: list[int]) -> list[int]:
        return [images[0], weight[0], *((size - 1) // stride + 1 for size in images[2:])]

    return _custom(f"{name}_{stride}", shape, lambda images, weight: images, bprop)


@functools.cache
def token_mean() -> Any:
    """(batch, tokens, dim) -> (batch, 1, dim)."""
    grad = _custom("token_mean_grad", lambda x, dy: x, lambda x, dy: x)

    def bprop(x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return (grad(x, dout),)

    return _custom("token_mean", lambda x: [x[0], 1, x[2]], lambda x: x, bprop)


@functools.cache
def token_gain() -> Any:
    """(batch, tokens, dim), gain (batch, 1, dim) -> their product, as the first."""
    grad = _custom("token_gain_grad", lambda x, gain, dy: (x, gain), lambda x, gain, dy: (x, x))

    def bprop(x: Tensor, gain: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return grad(x, gain, dout)

    return _again(_custom("token_gain", lambda x, gain: x, lambda x, gain: x, bprop))


@functools.cache
def product(has_bias: bool) -> Any:
    """(rows (n, in), weight (out, in)) -> (n, out), and with ``has_bias`` plus a bias (out,)."""
    rows_grad = _custom("product_rows_grad", lambda dy, weight: [dy[0], weight[1]], lambda dy, weight: dy)
    weight_grad = _custom("product_weight_grad", lambda dy, x: [dy[1], x[1]], lambda dy, x: dy)
    sums = column_sums()

    def bprop(x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return rows_grad(dout, weight), weight_grad(dout, x)

    def bprop_with_bias(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return rows_grad(dout, weight), weight_grad(dout, x), sums(dout)

    if has_bias:
        return _custom("product_bias", lambda x, w, bias: [x[0], w[0]], lambda x, w, bias: x, bprop_with_bias)
    return _custom("product", lambda x, weight: [x[0], weight[0]], lambda x, weight: x, bprop)


@functools.cache
def bfloat16_product(has_bias: bool) -> Any:
    """The same, all float32; multiplied in bfloat16, summed in float32."""
    grad = _custom("bfloat16_product_grad", lambda x, weight, dy: (x, weight), lambda x, weight, dy: (x, x))
    sums = column_sums()

    def bprop(x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple:
        return grad(x, weight, dout)

    def bprop_with_bias(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple:
        dx, dweight = grad(x, weight, dout)
        return dx, dweight, sums(dout)

    if has_bias:
        return _custom("bfloat16_product_bias", lambda x, w, bias: [x[0], w[0]], lambda x, w, bias: x, bprop_with_bias)
    return _custom("bfloat16_product", lambda x, weight: [x[0], weight[0]], lambda x, weight: x, bprop)


@functools.cache
def transformer_block(bfloat16: bool) -> Any:
    """x (batch, tokens, dim); of attention gamma, beta, weight and bias (3, heads, head_dim) of qkv, of proj, gain; of
    the MLP gamma, beta, weight and bias of fc1, of fc2, gain; factors of images for each residual, epsilon (1,) -> x.

    ``bfloat16``: so its linear layers multiply, and attention as above. Has no gradient: see `transformer_block_kept`.
    """
    return _custom(_in(bfloat16, "transformer_block"), lambda x, *rest: x, lambda x, *rest: x)


@functools.cache
def transformer_block_kept(bfloat16: bool) -> Any:
    """The same -> x, and four tensors for `transformer_block_grad`."""

    def shapes(
        x: list[int], gamma: list[int], beta: list[int], qkv: list[int], heads: list[int], *rest: list[int]
    ) -> Any:
        return x, [x[0], x[1], *heads], x, x, [x[0], x[1], rest[5][0]]

    return _custom(_in(bfloat16, "transformer_block_kept"), shapes, lambda x, *rest: (x,) * 5)


@functools.cache
def transformer_block_grad(bfloat16: bool) -> Any:
    """The gradient of x, what `transformer_block_kept` took, the four tensors it kept -> gradients of the first 15."""
    name = _in(bfloat16, "transformer_block_grad")
    return _custom(name, lambda dy, *rest: rest[:15], lambda dy, *rest: (dy,) * 15)


def _in(bfloat16: bool, name: str) -> str:
    return f"bfloat16_{name}" if bfloat16 else name
