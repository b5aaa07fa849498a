"""Kernels with a gradient of their own, against autodiff of the plain formula in float64 (PyTorch's)."""

from __future__ import annotations

import ctypes

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn, ops
from zoo import GradientOf, ValueAndGradient

from mindeit.kernels import attention, bias, gain, gelu, heads, norm, precision

SCALE, EPSILON = 0.125, 1e-6
TOLERANCE = {np.float32: 3e-6, np.float16: 4e-3}  # of each gradient's largest entry


def plain_attention(query, key, value):
    return torch.softmax(query @ key.transpose(-1, -2) * SCALE, -1) @ value


def plain_norm(x, gamma, beta):
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), gamma, beta, EPSILON)


class ScaledAttention(nn.Cell):
    def __init__(self):
        super().__init__()
        self.attend = attention.choose()

    def construct(self, query, key, value):
        return self.attend(query, key, value, SCALE)


HEADS = (2, 3, 19, 8)
CASES = {
    "bias": (bias.choose, torch.add, ((37, 24), (24,))),
    "gain of channels": (gain.choose, torch.mul, ((4, 9, 24), (24,))),
    "gain of each sample's channels": (gain.choose, torch.mul, ((4, 9, 24), (4, 1, 24))),
    "gain of samples": (gain.choose, torch.mul, ((4, 9, 24), (4, 1, 1))),
    "gelu": (gelu.choose, torch.nn.functional.gelu, ((5, 300),)),
    "gelu of a GPU": (gelu.ErfcGelu, torch.nn.functional.gelu, ((5, 300),)),
    "softmax of a GPU": (attention.GpuSoftmax, lambda x: torch.softmax(x, -1), ((2, 3, 19, 19),)),
    "norm": (lambda: norm.choose(EPSILON), plain_norm, ((4, 9, 24), (24,), (24,))),
    "attention": (ScaledAttention, plain_attention, (HEADS, HEADS, HEADS)),
}


def inputs_of(name: str, kind: type) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [(2 * rng.standard_normal(shape)).astype(kind) for shape in CASES[name][2]]


def truth(name: str, inputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(value, sensitivity, gradients) in float64."""
    tensors = [torch.from_numpy(values.astype(np.float64)).requires_grad_() for values in inputs]
    value = CASES[name][1](*tensors)
    sensitivity = np.random.default_rng(6).standard_normal(value.shape).astype(np.float16).astype(np.float64)
    value.backward(torch.from_numpy(sensitivity))
    return value.detach().numpy(), sensitivity, [tensor.grad.numpy() for tensor in tensors]


def gap(got: Tensor, want: np.ndarray) -> float:
    assert got.shape == want.shape
    return np.abs(got.asnumpy() - want).max() / np.abs(want).max()


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_those_of_the_plain_formula(name, kind, mode):
    inputs = inputs_of(name, kind)
    value, sensitivity, gradients = truth(name, inputs)
    kernel, tensors = CASES[name][0](), tuple(map(Tensor, inputs))
    result, got = ValueAndGradient(kernel)(*tensors, Tensor(sensitivity.astype(kind)))
    assert gap(result, value) < TOLERANCE[kind]
    assert len(got) == len(gradients)
    for own, wanted in zip(got, gradients):
        assert own.dtype == tensors[0].dtype
        assert gap(own, wanted) < TOLERANCE[kind]


@pytest.mark.parametrize("form", [gelu.choose, gelu.ErfcGelu])
def test_the_gelu_is_right_in_its_tails(form, mode):
    x = np.array([-100, -12, -6, 0, 6, 12, 100], np.float32)
    value, sensitivity, (gradient,) = truth("gelu", [x])
    kernel = form()
    result, (got,) = ValueAndGradient(kernel)(Tensor(x), Tensor(sensitivity.astype(np.float32)))
    assert np.abs(result.asnumpy() - value).max() < 1e-6
    assert np.abs(got.asnumpy() - gradient).max() < 1e-6


def test_a_gpu_s_gelu_of_halves_is_as_exact_as_halves_are_where_erf_would_cancel():
    """Written as 0.5 + 0.5 * erf, Phi(-3) = 0.00135 comes out of halves with an error of 8 %."""
    x = np.linspace(-4, -2, 200).astype(np.float16)
    value = truth("gelu", [x])[0]
    assert np.abs(gelu.ErfcGelu()(Tensor(x)).asnumpy() / value - 1).max() < 0.02


@pytest.mark.parametrize("kind", [ms.float32, ms.float16])
def test_one_transpose_divides_heads_as_three_do(kind, mode):
    stacked = Tensor(np.random.default_rng(8).standard_normal((2, 7, 3 * 4 * 5)), kind)
    for own, plain in zip(heads.TransposedOnce(4).divide(stacked), heads.TransposedHeads(4).divide(stacked)):
        assert own.shape == (2, 4, 7, 5)
        assert np.array_equal(own.asnumpy(), plain.asnumpy())


def test_at_o2_the_softmax_is_taken_in_float32(mode):
    """`to_float` would have its cell compute in halves."""
    attend = precision.apply(attention.MatmulAttention(), "O2")
    shares = attend.normalised.softmax(ops.zeros((1, 1, 1, 3000), ms.float16))
    assert shares.dtype == ms.float32
    assert attend.normalised(ops.zeros((1, 1, 1, 3000), ms.float16)).dtype == ms.float16


def test_the_norm_holds_where_means_outweigh_deviations(mode):
    """Written in x rather than in x - mean, its gradient loses as much as the float32 input has lost already."""
    rng = np.random.default_rng(7)
    x = (rng.standard_normal((50, 64)) + 30).astype(np.float32)
    gamma, beta = rng.standard_normal((2, 64)).astype(np.float32)
    _, sensitivity, gradients = truth("norm", [x, gamma, beta])
    got = GradientOf(norm.choose(EPSILON))(*map(Tensor, (x, gamma, beta, sensitivity.astype(np.float32))))
    assert max(gap(own, wanted) for own, wanted in zip(got, gradients)) < 2e-5


def test_a_bias_gradient_of_halves_is_summed_in_float32(mode):
    """A sum kept in half precision would stop at 2048."""
    rows, offset = Tensor(np.zeros((5000, 3), np.float16)), Tensor(np.zeros(3, np.float16))
    gradient = GradientOf(bias.choose())(rows, offset, ops.ones((5000, 3), ms.float16))[1]
    assert gradient.asnumpy() == pytest.approx(5000, rel=1e-3)


def test_attention_weights_are_the_softmax_of_scaled_scores(mode):
    query, key = inputs_of("attention", np.float32)[:2]
    weights = attention.choose().weights(Tensor(query), Tensor(key), SCALE).asnumpy()
    scores = np.einsum("bhqd,bhkd->bhqk", query.astype(np.float64), key) * SCALE
    wanted = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    assert np.abs(weights - wanted).max() < 1e-6


class Normalised(nn.Cell):
    def __init__(self):
        super().__init__()
        self.attend = attention.choose()

    def construct(self, scores):
        return self.attend.normalised(scores)


@pytest.mark.parametrize("kernel", [gelu.ErfGelu, Normalised], ids=["gelu", "softmax"])
def test_halves_are_computed_in_float32_and_rounded_once(kernel, graph_mode):
    x = (3 * np.random.default_rng(8).standard_normal((40, 300))).astype(np.float16)
    wanted = kernel()(Tensor(x.astype(np.float32))).asnumpy().astype(np.float16)
    found = kernel().to_float(ms.float16)(Tensor(x)).asnumpy()
    assert found.dtype == np.float16
    assert np.array_equal(found, wanted)


class HeapUse(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


def heap_in_use() -> int:
    count = ctypes.CDLL(None).mallinfo2
    count.restype = HeapUse
    found = count()
    return found.uordblks + found.hblkhd


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="counts by glibc's mallinfo2")
@pytest.mark.parametrize(
    ("kernel", "shapes"),
    [(gelu.choose, ((2000, 1000),)), (Normalised, ((2000, 1000),)), (gain.choose, ((4, 500, 1000), (4, 1, 1)))],
    ids=["gelu", "softmax", "gain"],
)
def test_a_graph_of_halves_keeps_no_lists_of_places(kernel, shapes, graph_mode):
    """MindSpore's products and sums of halves keep 16 bytes an element; a block has some twenty of them."""
    x, *others = (ops.ones(shape, ms.float16) for shape in shapes)
    step = GradientOf(kernel().to_float(ms.float16))
    step.compile(x, *others, x)
    ops.ones_like(x).asnumpy()  # the memory pool is there
    before = heap_in_use()
    step(x, *others, x)[0].asnumpy()
    assert (heap_in_use() - before) / x.size < 2
