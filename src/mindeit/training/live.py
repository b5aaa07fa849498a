"""The parameters of a running training: out as arrays, in again, and the average in the model's place for a while."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Optional

import mindspore as ms
import numpy as np
from mindspore import Parameter

from mindeit.checkpoint import State, check_names


@dataclass(frozen=True)
class Live:
    """``averages`` stand in the order of ``weights`` and go by their names; None without a moving average.

    The arrays it gives look at the parameters' own memory: write or copy them before the next step.
    """

    weights: Sequence[Parameter]
    averages: Optional[Sequence[Parameter]]
    optimizer: Sequence[Parameter]

    @property
    def all(self) -> list[Parameter]:
        return [*self.weights, *(self.averages or ()), *self.optimizer]

    def model(self) -> State:
        return {one.name: one.asnumpy() for one in self.weights}

    def ema(self) -> Optional[State]:
        if self.averages is None:
            return None
        return {weight.name: one.asnumpy() for weight, one in zip(self.weights, self.averages)}

    def optimizer_state(self) -> State:
        return {one.name: one.asnumpy() for one in self.optimizer}

    def restore(self, model: State, ema: Optional[State], optimizer: State, where: object) -> None:
        """Everything fits, or one error says what does not and nothing is set."""
        _check(self.weights, model, where)
        _check(self.optimizer, optimizer, where)
        _set(self.weights, model)
        _set(self.optimizer, optimizer)
        if self.averages is not None:
            source = model if ema is None else ema  # a run that only now begins to average starts from its weights
            for weight, average in zip(self.weights, self.averages):
                average.set_data(ms.Tensor(source[weight.name]))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the model computes with the averages."""
        own = {name: value.copy() for name, value in self.model().items()}
        _set(self.weights, self.ema())
        try:
            yield
        finally:
            _set(self.weights, own)


def _check(parameters: Sequence[Parameter], state: State, where: object) -> None:
    wanted = {one.name: tuple(one.shape) for one in parameters}
    check_names(wanted, {name: value.shape for name, value in state.items()}, where=where)


def _set(parameters: Sequence[Parameter], state: Mapping[str, np.ndarray]) -> None:
    for one in parameters:
        one.set_data(ms.Tensor(state[one.name], one.dtype))
