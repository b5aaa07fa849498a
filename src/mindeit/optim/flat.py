"""The trained parameters as a few flat buffers: an update then takes a kernel per buffer, not one per parameter.

The buffers are float32 and hold the weights that training moves. The model's own parameters are copies of them, in the
precision that the model computes in. Compiling gains too: loops over buffers stay short however deep a model is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindeit.optim.groups import Trained


class Stack(nn.Cell):
    """Parameters of one shape, which lie side by side in a buffer from ``start`` on."""

    def __init__(self, parameters: Sequence[Parameter], start: int) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.count, self.shape = len(parameters), tuple(parameters[0].shape)
        self.start, self.end = start, start + self.count * parameters[0].size
        self.split, self.map = ops.Split(0, self.count), ops.HyperMap()

    def section(self, buffer: Tensor) -> Tensor:
        """The stack's values, (parameters, values of each)."""
        return ops.reshape(buffer[self.start : self.end], (self.count, -1))

    def construct(self, buffer: Tensor) -> bool:
        """Copy the values into the parameters."""
        rows = ops.reshape(buffer[self.start : self.end], (self.count * self.shape[0],) + self.shape[1:])
        self.map(_assign, self.parameters, self.split(rows))
        return True


def _assign(parameter: Tensor, value: Tensor) -> Tensor:
    return ops.assign(parameter, value)


class Group(nn.Cell):
    """Parameters of equal decay, share of the learning rate and precision: one buffer."""

    def __init__(self, members: Sequence[Trained], dtype: ms.Type, name: str) -> None:
        super().__init__(auto_prefix=False)
        self.decay, self.lr_scale, self.dtype = members[0].decay, members[0].lr_scale, dtype
        values = np.concatenate([member.parameter.asnumpy().ravel() for member in members])
        self.size = values.size
        self.weights = Parameter(Tensor(values.astype(np.float32)), name=name, requires_grad=False)
        self.stacks = nn.CellList(_stacks([member.parameter for member in members]), auto_prefix=False)

    def construct(self) -> bool:
        """Copy the buffer into the parameters."""
        values = self.weights.astype(self.dtype)
        for stack in self.stacks:
            stack(values)
        return True


def _stacks(parameters: Sequence[Parameter]) -> list[Stack]:
    """Parameters of equal shape are neighbours in ``parameters``."""
    stacks, start = [], 0
    for members in _runs(parameters, lambda parameter: tuple(parameter.shape)):
        stacks.append(Stack(members, start))
        start = stacks[-1].end
    return stacks


def _runs(items: Sequence, key: Callable) -> list[list]:
    """``items`` in runs of equal ``key``, in order of first appearance."""
    runs: dict[object, list] = {}
    for item in items:
        runs.setdefault(key(item), []).append(item)
    return list(runs.values())


class FlatParameters(nn.Cell):
    """Float32 buffers of the ``trained`` parameters, and the way from parameters to buffers and back.

    ``stored`` gives the type that a parameter has in the model from now on (default: float32).
    ``parameters`` are in the order of the buffers; gradients are taken with respect to them.
    """

    def __init__(
        self, trained: Sequence[Trained], stored: Callable[[Parameter], ms.Type] = lambda parameter: ms.float32
    ) -> None:
        super().__init__(auto_prefix=False)
        groups = _runs(
            trained, lambda member: (str(stored(member.parameter)), float(member.decay), float(member.lr_scale))
        )
        ordered = [sum(_runs(group, lambda member: tuple(member.parameter.shape)), []) for group in groups]
        groups = [
            Group(members, stored(members[0].parameter), f"weights.{number}") for number, members in enumerate(ordered)
        ]
        self.groups = nn.CellList(groups, auto_prefix=False)  # parameters keep their names
        self.parameters = ParameterTuple([member.parameter for members in ordered for member in members])
        self.weights = ParameterTuple([group.weights for group in self.groups])
        ends = np.cumsum([len(members) for members in ordered]).tolist()
        self.bounds = tuple(zip([0, *ends], ends))
        self.map = ops.HyperMap()
        for group, members in zip(self.groups, ordered):
            for member in members:
                member.parameter.set_dtype(group.dtype)

    def construct(self) -> bool:
        """Copy the buffers into the model's parameters."""
        for group in self.groups:
            group()
        return True

    def join(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients of ``parameters`` -> one float32 tensor per buffer."""
        flat = self.map(_flatten, gradients)
        joined: tuple[Tensor, ...] = ()
        for first, last in self.bounds:
            joined += (ops.concat(flat[first:last]).astype(ms.float32),)
        return joined

    def zeros(self, name: str) -> ParameterTuple:
        """Optimizer state: a buffer of zeros for each buffer of weights."""
        return ParameterTuple(
            [
                Parameter(Tensor(np.zeros(group.size, np.float32)), name=f"{name}.{number}", requires_grad=False)
                for number, group in enumerate(self.groups)
            ]
        )

    def values(self, buffers: Sequence[Parameter]) -> dict[str, np.ndarray]:
        """The values of ``buffers`` by parameter name; views where the device allows them."""
        found = {}
        for group, buffer in zip(self.groups, buffers):
            flat, start = buffer.asnumpy(), 0
            for parameter in _members(group):
                found[parameter.name] = flat[start : start + parameter.size].reshape(parameter.shape)
                start += parameter.size
        return found

    def load(self, buffers: Sequence[Parameter], values: Mapping[str, np.ndarray]) -> None:
        """The reverse of ``values``."""
        for group, buffer in zip(self.groups, buffers):
            flat = np.concatenate([np.ravel(values[parameter.name]) for parameter in _members(group)])
            buffer.set_data(Tensor(flat.astype(np.float32)))


def _members(group: Group) -> list[Parameter]:
    return [parameter for stack in group.stacks for parameter in stack.parameters]


def _flatten(gradient: Tensor) -> Tensor:
    return ops.reshape(gradient, (-1,))
