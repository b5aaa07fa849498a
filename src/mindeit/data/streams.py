"""Random numbers that depend only on seed, epoch and position, not on workers, ranks or earlier draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Union

import numpy as np

Positions = Union[Sequence[int], np.ndarray]
_STREAMS = {"order": 0, "image": 1, "mixing": 2, "depth": 3}
# The constants of NumPy's SeedSequence and PCG64, whose streams NumPy promises never to change.
_POOL, _WORDS = 4, 8
_INIT_A, _MULTIPLY_A, _INIT_B, _MULTIPLY_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_PCG_MULTIPLIER, _PCG_MASK = 0x2360ED051FC65DA44385DF649FCCF645, (1 << 128) - 1


def generator(seed: int, epoch: int, stream: str, position: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, _STREAMS[stream], position])))


def generators(seed: int, epoch: int, stream: str, positions: Positions) -> Iterator[np.random.Generator]:
    """The same numbers as `generator` for each position, at a tenth of the cost.

    All are one object whose state is set anew, so each may be used only until the next one is taken.
    """
    bits = np.random.PCG64(0)
    shared = np.random.Generator(bits)
    for state, increment in _pcg_states(seed, epoch, stream, positions):
        bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment},
            "has_uint32": 0,
            "uinteger": 0,
        }
        yield shared


def uniform_draws(seed: int, epoch: int, positions: Positions, count: int) -> np.ndarray:
    """``count`` numbers in 0..1 for each position, float32 (count, positions): what decides on stochastic depth."""
    if not count:
        return np.zeros((1, len(positions)), np.float32)
    return np.stack([rng.random(count, np.float32) for rng in generators(seed, epoch, "depth", positions)], 1)


def _pcg_states(seed: int, epoch: int, stream: str, positions: Positions) -> Iterator[tuple[int, int]]:
    """(state, increment) as `PCG64` derives them from the words of its seed sequence."""
    words = _seed_words(np.array([[seed], [epoch], [_STREAMS[stream]]]), np.asarray(positions))
    for first, second, third, fourth in words.tolist():
        increment = ((third << 64 | fourth) << 1 | 1) & _PCG_MASK
        state = (increment + (first << 64 | second)) * _PCG_MULTIPLIER + increment
        yield state & _PCG_MASK, increment


def _seed_words(place: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`SeedSequence([*place, position]).generate_state(4, uint64)` of every position at once, (positions, 4)."""
    entropy = np.concatenate([np.broadcast_to(place, (_POOL - 1, len(positions))), positions[None]])
    if entropy.max(initial=0) >> 32 or entropy.min(initial=0) < 0:
        raise ValueError("seeds, epochs and positions are numbers of 32 bits")
    constants = _powers(_INIT_A, _MULTIPLY_A, _POOL * _POOL)
    pool = [_hashed(row, *next(constants)) for row in entropy.astype(np.uint32)]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                mixed = _MIX_LEFT * pool[target] - _MIX_RIGHT * _hashed(pool[source], *next(constants))
                pool[target] = mixed ^ mixed >> np.uint32(16)
    constants = _powers(_INIT_B, _MULTIPLY_B, _WORDS)
    words = np.stack([_hashed(pool[word % _POOL], *next(constants)) for word in range(_WORDS)], 1).astype(np.uint64)
    return words[:, 0::2] | words[:, 1::2] << np.uint64(32)


def _hashed(value: np.ndarray, before: np.uint32, after: np.uint32) -> np.ndarray:
    value = (value ^ before) * after
    return value ^ value >> np.uint32(16)


def _powers(first: int, factor: int, count: int) -> Iterator[tuple[np.uint32, np.uint32]]:
    """Neighbours of first, first * factor, first * factor**2, ... in 32 bits."""
    for _ in range(count):
        following = first * factor & 0xFFFFFFFF
        yield np.uint32(first), np.uint32(following)
        first = following
