"""The parameters of a running training: read and restored as arrays; evaluation with the averaged weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter

from mindeit.optim.flat import FlatParameters
from mindeit.training.average import Average
from mindeit.training.loss_scale import LossScale, StepState
from mindeit.weights.checkpoint import State, check_names


@dataclass(frozen=True)
class TrainVariables:
    """``model``'s parameters in its order. Those that train are copies of ``flat``'s buffers, which count.

    ``optimizer``: buffers by ``<optimizer>.<slot>``. Arrays may share the memory of the
    parameters: write or copy them before the next step.
    """

    parameters: Sequence[Parameter]
    flat: FlatParameters
    average: Average | None
    optimizer: Mapping[str, Sequence[Parameter]]
    step: StepState

    @property
    def all(self) -> list[Parameter]:
        """Everything that a step reads and changes."""
        averages = self.average.averages if self.average else ()
        buffers = [buffer for slot in self.optimizer.values() for buffer in slot]
        return [*self.flat.weights, *self._others, *averages, *buffers, self.step.values]

    @property
    def _others(self) -> list[Parameter]:
        """Parameters of the model that do not train."""
        trained = {parameter.name for parameter in self.flat.parameters}
        return [parameter for parameter in self.parameters if parameter.name not in trained]

    def model(self) -> State:
        values = {**self.flat.values(self.flat.weights), **{other.name: other.asnumpy() for other in self._others}}
        return {parameter.name: values[parameter.name] for parameter in self.parameters}

    def ema(self) -> State | None:
        if self.average is None:
            return None
        pairs = zip(self.average.statistics, self.average.of_statistics)
        statistics = {source.name: average.asnumpy() for source, average in pairs}
        return {**self.model(), **self.flat.values(self.average.of_weights), **statistics}

    def optimizer_state(self) -> State:
        return {
            f"{slot}.{name}": value
            for slot, buffers in self.optimizer.items()
            for name, value in self.flat.values(buffers).items()
        }

    def restore(
        self, model: State, ema: State | None, optimizer: State, where: object, *, updates: int, scale: LossScale
    ) -> None:
        """Set all values. If something does not fit, nothing is set and one error lists it all."""
        _check(self.model(), model, where)
        _check(self.optimizer_state(), optimizer, where)
        self.flat.load(self.flat.weights, model)
        _set(self._others, model)
        for slot, buffers in self.optimizer.items():
            own = {name[len(slot) + 1 :]: value for name, value in optimizer.items() if name.startswith(f"{slot}.")}
            self.flat.load(buffers, own)
        if self.average is not None:
            source = model if ema is None else ema  # a run that only now begins to average starts from its weights
            self.flat.load(self.average.of_weights, source)
            for statistic, average in zip(self.average.statistics, self.average.of_statistics):
                average.set_data(ms.Tensor(source[statistic.name]))
        self.step.set(updates, scale)
        self.refresh()

    def refresh(self) -> None:
        """Copy the weights in training into the model."""
        _set(self.flat.parameters, self.flat.values(self.flat.weights))

    def averaged(self) -> AbstractContextManager[None]:
        """Inside the block the model computes with the averages."""
        averages = self.ema()
        assert averages is not None  # asked for only where there is an average
        return self.holding(averages)

    @contextmanager
    def holding(self, state: State | None) -> Iterator[None]:
        """Inside the block the model's parameters have these values; None: their own."""
        others = self._others
        own = {parameter.name: parameter.asnumpy().copy() for parameter in others}
        if state is not None:
            _set(self.parameters, state)
        try:
            yield
        finally:
            _set(others, own)
            self.refresh()


def _check(own: State, state: State, where: object) -> None:
    shapes = ({name: tuple(value.shape) for name, value in values.items()} for values in (own, state))
    check_names(*shapes, where=where)


def _set(parameters: Sequence[Parameter], state: Mapping[str, np.ndarray]) -> None:
    for parameter in parameters:
        parameter.set_data(ms.Tensor(state[parameter.name], parameter.dtype))
