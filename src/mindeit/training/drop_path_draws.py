"""The random numbers for the drop paths of a step."""

from __future__ import annotations

import numpy as np
from mindspore import nn

from mindeit.data import uniform_draws
from mindeit.layers.drop_path import share_draws


class DropPathDraws:
    """(epoch, positions of a batch) -> uniform draws (drop paths, views * batch), which depend on these and the seed.

    ``table`` receives them; it is None for a model without drop paths. ``views``: how often the model sees each image.
    """

    def __init__(self, model: nn.Cell, batch_size: int, views: int, seed: int) -> None:
        self.table = share_draws(model, views * batch_size)
        self._paths = 0 if self.table is None else self.table.shape[0]
        self._views, self._seed = views, seed

    def __call__(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        draws = uniform_draws(self._seed, epoch, positions, self._paths * self._views)
        return (
            draws.reshape(self._views, -1, len(positions)).transpose(1, 0, 2).reshape(-1, self._views * len(positions))
        )
