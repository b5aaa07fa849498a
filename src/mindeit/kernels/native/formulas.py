"""What the operators compute, written plainly in float64: the yardstick of their self-test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

Arrays = tuple[np.ndarray, ...]

EPSILON = 1e-3  # of layer norms


def normal(x: np.ndarray) -> Arrays:
    """The normal distribution and its density."""
    phi = np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)))(x)
    return phi, np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def normalised(x: np.ndarray) -> Arrays:
    """Rows of mean 0 and variance 1, and the factors that made the latter so."""
    r = 1 / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    return (x - x.mean(-1, keepdims=True)) * r, r


def layer_norm_grad(x: np.ndarray, gamma: np.ndarray, dy: np.ndarray) -> Arrays:
    """Gradients of rows, gamma and beta."""
    hat, r = normalised(x)
    u, rows = dy * gamma, tuple(range(x.ndim - 1))
    dx = r * (u - u.mean(-1, keepdims=True) - hat * (u * hat).mean(-1, keepdims=True))
    return dx, (dy * hat).sum(rows), dy.sum(rows)


def attention(qkv: np.ndarray) -> Arrays:
    """(batch, tokens, 3, heads, head_dim) -> mixed values (batch, tokens, dim), and the weights of tokens."""
    query, key, value = _heads_first(qkv)
    shares = softmax(query @ key.swapaxes(2, 3) * query.shape[3] ** -0.5)
    return _merged(shares @ value), shares


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores)
    return powers / powers.sum(-1, keepdims=True)


def softmax_grad(shares: np.ndarray, grad: np.ndarray) -> np.ndarray:
    return shares * (grad - (shares * grad).sum(-1, keepdims=True))


def attention_grad(qkv: np.ndarray, dmixed: np.ndarray) -> np.ndarray:
    query, key, value = _heads_first(qkv)
    shares, dheads = attention(qkv)[1], _divided(dmixed, qkv)
    dscores = softmax_grad(shares, dheads @ value.swapaxes(2, 3)) * query.shape[3] ** -0.5
    return _stacked(dscores @ key, dscores.swapaxes(2, 3) @ query, shares.swapaxes(2, 3) @ dheads)


def _heads_first(qkv: np.ndarray) -> np.ndarray:
    return np.moveaxis(qkv, (2, 3), (0, 2))  # query, key, value (batch, heads, tokens, head_dim)


def _stacked(*parts: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.stack(parts), (0, 2), (2, 3))


def _merged(heads: np.ndarray) -> np.ndarray:
    mixed = heads.swapaxes(1, 2)
    return mixed.reshape(*mixed.shape[:2], -1)


def _divided(mixed: np.ndarray, qkv: np.ndarray) -> np.ndarray:
    return mixed.reshape(*qkv.shape[:2], *qkv.shape[3:]).swapaxes(1, 2)


class Convolution:
    """Images (batch, channels, height, width) by a weight (out, channels of a group, k, k), padded by k // 2 zeros."""

    def __init__(self, images: np.ndarray, weight: np.ndarray, stride: int = 1) -> None:
        channels, self.kernel = weight.shape[1:3]
        groups, margin = images.shape[1] // channels, self.kernel // 2
        self.stride, self.sizes = stride, [(size - 1) // stride + 1 for size in images.shape[2:]]
        self.weight = weight.reshape(groups, -1, *weight.shape[1:])
        framed = np.pad(images, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
        self.framed = framed.reshape(len(images), groups, channels, *framed.shape[2:])
        shifted = (np.einsum("bgchw,goc->bgohw", self.framed[place], self.weight[tap]) for tap, place in self._taps())
        self.y = sum(shifted).reshape(len(images), len(weight), *self.sizes)

    def _taps(self) -> Iterator[tuple[tuple, tuple]]:
        """Each place of the kernel, and what it sees of the framed images."""
        for i, j in np.ndindex(self.kernel, self.kernel):
            seen = (slice(at, at + self.stride * size, self.stride) for at, size in zip((i, j), self.sizes))
            yield (..., i, j), (..., *seen)

    def gradients(self, dy: np.ndarray) -> Arrays:
        """Of images and weight."""
        dframed, dweight = np.zeros_like(self.framed), np.zeros_like(self.weight)
        dy = dy.reshape(len(dy), len(self.weight), -1, *self.sizes)
        for tap, place in self._taps():
            dframed[place] += np.einsum("bgohw,goc->bgchw", dy, self.weight[tap])
            dweight[tap] = np.einsum("bgohw,bgchw->goc", dy, self.framed[place])
        margin = self.kernel // 2
        inside = dframed[..., margin : dframed.shape[3] - margin, margin : dframed.shape[4] - margin]
        return inside.reshape(len(dy), -1, *inside.shape[3:]), dweight.reshape(-1, *dweight.shape[2:])


class TalkingHeads:
    """Attention whose heads exchange scores before the softmax and probabilities after it, each by a weight
    (heads, heads) and a bias (heads,)."""

    def __init__(
        self, qkv: np.ndarray, before: np.ndarray, its_bias: np.ndarray, after: np.ndarray, bias: np.ndarray
    ) -> None:
        self.qkv, self.before, self.after = qkv, before, after
        query, key, value = _heads_first(qkv)
        self.scores = query @ key.swapaxes(2, 3) * query.shape[3] ** -0.5
        self.shares = softmax(np.einsum("gh,bhij->bgij", before, self.scores) + its_bias[:, None, None])
        self.mixing = np.einsum("gh,bhij->bgij", after, self.shares) + bias[:, None, None]
        self.mixed = _merged(self.mixing @ value)

    def gradients(self, dmixed: np.ndarray) -> Arrays:
        """Of qkv and the exchanges, but for the first bias, which changes nothing."""
        (query, key, value), dheads = _heads_first(self.qkv), _divided(dmixed, self.qkv)
        dmixing = dheads @ value.swapaxes(2, 3)
        dtalked = softmax_grad(self.shares, np.einsum("gh,bgij->bhij", self.after, dmixing))
        dscores = np.einsum("gh,bgij->bhij", self.before, dtalked) * query.shape[3] ** -0.5
        dqkv = _stacked(dscores @ key, dscores.swapaxes(2, 3) @ query, self.mixing.swapaxes(2, 3) @ dheads)
        of_weights = [np.einsum("bgij,bhij->gh", *pair) for pair in ((dtalked, self.scores), (dmixing, self.shares))]
        return dqkv, *of_weights, dmixing.sum((0, 2, 3))


class Block:
    """A transformer's block: x (batch, tokens, dim), the seven weights of attention, those of the MLP, and the factors
    of images for each residual."""

    def __init__(self, x: np.ndarray, weights: Sequence[np.ndarray], factors: Sequence[np.ndarray]) -> None:
        self.x, self.attention, self.mlp = x, weights[:7], weights[7:]
        self.factors = [factor[:, None, None] for factor in factors]
        gamma, beta, qkv, qkv_bias, *_ = self.attention
        self.stacked = ((normalised(x)[0] * gamma + beta) @ qkv.T).reshape(*x.shape[:2], *qkv_bias.shape)
        self.mixed = attention(self.stacked + qkv_bias)[0]
        self.middle = x + self._branch(self.mixed, self.attention, self.factors[0])
        gamma, beta, fc1, fc1_bias, *_ = self.mlp
        self.hidden = (normalised(self.middle)[0] * gamma + beta) @ fc1.T
        wide = self.hidden + fc1_bias
        self.y = self.middle + self._branch(wide * normal(wide)[0], self.mlp, self.factors[1])

    def _branch(self, inner: np.ndarray, half: Sequence[np.ndarray], factors: np.ndarray) -> np.ndarray:
        *_, weight, bias, gain = half
        return (inner @ weight.T + bias) * gain * factors

    def gradients(self, dy: np.ndarray) -> list[np.ndarray]:
        """Of x and the fourteen weights."""
        wide = self.hidden + self.mlp[3]
        phi, density = normal(wide)
        dinner, *dsecond = self._second(wide * phi, self.mlp, self.factors[1] * dy)
        dwide = dinner * (phi + wide * density)
        dmiddle, *dfirst = self._first(self.middle, self.mlp, dwide)
        dmiddle = dmiddle + dy
        dmlp = [*dfirst, dwide.sum((0, 1)), *dsecond]
        dmixed, *dsecond = self._second(self.mixed, self.attention, self.factors[0] * dmiddle)
        dstacked = attention_grad(self.stacked + self.attention[3], dmixed)
        dx, *dfirst = self._first(self.x, self.attention, dstacked.reshape(*self.x.shape[:2], -1))
        return [dx + dmiddle, *dfirst, dstacked.sum((0, 1)), *dsecond, *dmlp]

    def _second(self, inner: np.ndarray, half: Sequence[np.ndarray], dbranch: np.ndarray) -> Arrays:
        *_, weight, bias, gain = half
        dproduct = dbranch * gain
        dweight = np.einsum("bni,bnj->ij", dproduct, inner)
        return dproduct @ weight, dweight, dproduct.sum((0, 1)), (dbranch * (inner @ weight.T + bias)).sum((0, 1))

    def _first(self, x: np.ndarray, half: Sequence[np.ndarray], dproduct: np.ndarray) -> Arrays:
        gamma, beta, weight, *_ = half
        dx, dgamma, dbeta = layer_norm_grad(x, gamma, dproduct @ weight)
        return dx, dgamma, dbeta, np.einsum("bni,bnj->ij", dproduct, normalised(x)[0] * gamma + beta)
