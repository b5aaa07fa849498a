"""Each operator on small inputs, against the plain formula in float64."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Iterator

import numpy as np

from mindeit.kernels.native import formulas
from mindeit.kernels.native.formulas import EPSILON

Arrays = tuple[np.ndarray, ...]
# An operator, its inputs, and what its outputs should be.
Case = tuple[str, Arrays, Arrays]

TOLERANCE = 1e-5  # of the largest element; what is right differs by 1e-6
BFLOAT16_TOLERANCE = 3e-2  # where products of rounded numbers follow each other


def first_wrong(library: ctypes.CDLL, cases: Iterable[Case], tolerance: float = TOLERANCE) -> str | None:
    """The name of an operator whose results are wrong."""
    for name, inputs, wanted in cases:
        outputs = tuple(np.full(result.shape, np.nan, np.float32) for result in wanted)
        if call(library, name, *inputs, *outputs) != 0:
            return name
        for output, result in zip(outputs, wanted):
            if not np.abs(output - result).max() <= tolerance * np.abs(result).max():  # also where one is NaN
                return name
    return None


def call(library: ctypes.CDLL, name: str, *arrays: np.ndarray) -> int:
    """Run an operator as MindSpore does; not 0: it refuses these arrays."""
    count = len(arrays)
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    return getattr(library, name)(
        count,
        (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays)),
        (ctypes.c_int * count)(*(array.ndim for array in arrays)),
        (ctypes.POINTER(ctypes.c_int64) * count)(*(ctypes.cast(s, ctypes.POINTER(ctypes.c_int64)) for s in shapes)),
        (ctypes.c_char_p * count)(*(str(array.dtype).encode() for array in arrays)),
        None,
        None,
    )


def cases(random: np.random.Generator) -> Iterator[Case]:
    """Of all operators but products."""

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    # Sizes that fill no vector and no tile, and several blocks of queries.
    rows, bias, dy = draw(35, 27) * 2, draw(27), draw(35, 27)
    wide = rows.astype(np.float64) + bias
    phi, density = formulas.normal(wide)
    dx = dy * (phi + wide * density)
    yield "bias_gelu", (rows, bias), (wide * phi,)
    yield "bias_gelu_grad", (rows, bias, dy), (dx, dx.sum(0))
    yield "column_sums", (rows,), (rows.astype(np.float64).sum(0),)
    x, branch, gain, factors = draw(3, 7, 27), draw(3, 7, 27), draw(27), draw(3)
    by_image, dsum = factors.astype(np.float64)[:, None, None], draw(3, 7, 27)
    yield "residual", (x, branch, gain, factors), (x + branch * gain * by_image,)
    dscaled = dsum * by_image
    yield "residual_grad", (branch, gain, factors, dsum), (dscaled * gain, (dscaled * branch).sum((0, 1)))
    yield from _layer_norm(rows, bias, dy, draw(27))
    yield from _tokens(x.astype(np.float64), draw(3, 1, 27), dsum)
    yield from _depthwise(draw(2, 25, 27), draw(27, 1, 3, 3), draw(27), draw(2, 25, 27))
    yield from _attention(draw(2, 53, 3, 2, 24), draw(2, 53, 48))
    yield from talking_heads_cases(random)


def _layer_norm(x: np.ndarray, gamma: np.ndarray, dy: np.ndarray, beta: np.ndarray) -> Iterator[Case]:
    epsilon, wide = np.array([EPSILON], np.float32), x.astype(np.float64)
    yield "layer_norm", (x, gamma, beta, epsilon), (formulas.normalised(wide)[0] * gamma + beta,)
    dx, dgamma, dbeta = formulas.layer_norm_grad(wide, gamma.astype(np.float64), dy.astype(np.float64))
    yield "layer_norm_grad", (x, gamma, dy, epsilon), (dx, np.stack([dgamma, dbeta]))


def _tokens(x: np.ndarray, gain: np.ndarray, dy: np.ndarray) -> Iterator[Case]:
    single, tokens = x.astype(np.float32), x.shape[1]
    dmean = np.broadcast_to(gain.astype(np.float64) / tokens, x.shape)
    yield "token_mean", (single,), (x.mean(1, keepdims=True),)
    yield "token_mean_grad", (single, gain), (dmean,)
    yield "token_gain", (single, gain), (x * gain,)
    yield "token_gain_grad", (single, gain, dy), (gain * dy.astype(np.float64), (x * dy).sum(1, keepdims=True))


def _depthwise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dy: np.ndarray) -> Iterator[Case]:
    """On 5 x 5 places, channels last."""
    convolution = formulas.Convolution(_channels_first(x.astype(np.float64)), weight.astype(np.float64))
    seen = _channels_last(convolution.y) + bias
    phi, density = formulas.normal(seen)
    dseen = dy * (phi + seen * density)
    dx, dweight = convolution.gradients(_channels_first(dseen))
    yield "depthwise_gelu", (x, weight, bias), (seen * phi,)
    yield "depthwise_gelu_grad", (x, weight, bias, dy), (_channels_last(dx), dweight, dseen.sum((0, 1)))


def _channels_first(x: np.ndarray) -> np.ndarray:
    side = math.isqrt(x.shape[1])
    return x.swapaxes(1, 2).reshape(len(x), -1, side, side)


def _channels_last(images: np.ndarray) -> np.ndarray:
    return images.reshape(*images.shape[:2], -1).swapaxes(1, 2)


def _attention(qkv: np.ndarray, dy: np.ndarray) -> Iterator[Case]:
    stacked = qkv.astype(np.float64)
    yield "attention", (qkv,), (formulas.attention(stacked)[0],)
    yield "attention_grad", (qkv, dy), (formulas.attention_grad(stacked, dy.astype(np.float64)),)


def talking_heads_cases(random: np.random.Generator, heads: int = 5, prefix: str = "") -> Iterator[Case]:
    """``prefix``: of the operators' names."""
    sizes = ((2, 53, 3, heads, 12), (heads, heads), (heads,), (heads, heads), (heads,), (2, 53, 12 * heads))
    *inputs, dy = (random.standard_normal(size).astype(np.float32) for size in sizes)
    talk = formulas.TalkingHeads(*(array.astype(np.float64) for array in inputs))
    yield f"{prefix}talking_heads", tuple(inputs), (talk.mixed,)
    yield f"{prefix}talking_heads_grad", (*inputs, dy), talk.gradients(dy.astype(np.float64))


def product_cases(random: np.random.Generator) -> Iterator[Case]:
    """Tall and wide results, large enough for threads to share them; images that threads have alone, and one left."""
    yield from block_cases(random)
    yield from convolution_cases(random)
    for count, out in ((83, 40), (40, 83)):
        rows, weight, bias, dy = (
            random.standard_normal(shape).astype(np.float32) for shape in ((count, 27), (out, 27), (out,), (count, out))
        )
        x, w, g = (array.astype(np.float64) for array in (rows, weight, dy))
        yield "product", (rows, weight), (x @ w.T,)
        yield "product_bias", (rows, weight, bias), (x @ w.T + bias,)
        yield "product_rows_grad", (dy, weight), (g @ w,)
        yield "product_weight_grad", (dy, rows), (g.T @ x,)


def convolution_cases(random: np.random.Generator, prefix: str = "") -> Iterator[Case]:
    """In groups and pointwise, with either stride, on images of odd and even sides."""
    for channels, weight_shape, stride in ((6, (8, 3, 3, 3), 1), (6, (8, 3, 3, 3), 2), (5, (7, 5, 1, 1), 1)):
        images, weight = (
            random.standard_normal(shape).astype(np.float32) for shape in ((3, channels, 9, 6), weight_shape)
        )
        convolution = formulas.Convolution(images.astype(np.float64), weight.astype(np.float64), stride)
        dy = random.standard_normal(convolution.y.shape).astype(np.float32)
        dimages, dweight = convolution.gradients(dy.astype(np.float64))
        yield f"{prefix}convolution_{stride}", (images, weight), (convolution.y,)
        yield f"{prefix}convolution_grad", (images, weight, dy), (dimages,)
        yield f"{prefix}convolution_weight_grad", (images, weight, dy), (dweight,)


def block_cases(
    random: np.random.Generator,
    shape: tuple[int, int, int] = (3, 53, 24),
    heads: int = 3,
    hidden: int = 40,
    prefix: str = "",
) -> Iterator[Case]:
    batch, _, dim = shape
    halves = [
        [(dim,), (dim,), (wide, dim), first_bias, (dim, narrow), (dim,), (dim,)]
        for wide, first_bias, narrow in ((3 * dim, (3, heads, dim // heads), dim), (hidden, (hidden,), hidden))
    ]
    sizes = (shape, *halves[0], *halves[1], (batch,), (batch,))
    single = [random.standard_normal(size).astype(np.float32) / 2 for size in sizes]
    x, *weights = (array.astype(np.float64) for array in single)
    block, inputs = formulas.Block(x, weights[:14], weights[14:]), (*single, np.array([EPSILON], np.float32))
    kept = (block.stacked, block.mixed, block.middle, block.hidden)
    yield f"{prefix}transformer_block", inputs, (block.y,)
    yield f"{prefix}transformer_block_kept", inputs, (block.y, *kept)
    dy = random.standard_normal(shape).astype(np.float32)
    taken = (dy, *inputs, *(array.astype(np.float32) for array in kept))
    yield f"{prefix}transformer_block_grad", taken, tuple(block.gradients(dy.astype(np.float64)))


def bfloat16_cases(random: np.random.Generator) -> Iterator[Case]:
    """Products of what is rounded to bfloat16: exact in float32, where they are summed."""
    rows, weight, bias, dy = (
        random.standard_normal(shape).astype(np.float32) for shape in ((53, 24), (40, 24), (40,), (53, 40))
    )
    x, w, g = (_bfloat16(array).astype(np.float64) for array in (rows, weight, dy))
    yield "bfloat16_product", (rows, weight), (x @ w.T,)
    yield "bfloat16_product_bias", (rows, weight, bias), (x @ w.T + bias,)
    yield "bfloat16_product_grad", (rows, weight, dy), (g @ w, g.T @ x)


def _bfloat16(array: np.ndarray) -> np.ndarray:
    """The nearest ones, as float32."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
