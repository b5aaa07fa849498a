"""Evaluation during training: the current model on the evaluation images."""

from __future__ import annotations

import itertools

import numpy as np
from mindspore import nn

from mindeit.data import EvaluationBatches
from mindeit.layers.normalised import Normalised
from mindeit.objectives import Objective
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.graph import compiled, to_device
from mindeit.runtime.progress import progress
from mindeit.training.evaluate import Batch, Evaluation, evaluate
from mindeit.training.predictions import Predictions
from mindeit.weights.card import ModelCard


class Evaluator:
    """``train_mode``: the mode of the objective after an evaluation."""

    def __init__(
        self, batches: EvaluationBatches, objective: Objective, card: ModelCard, cluster: Cluster, train_mode: bool
    ) -> None:
        self.batches, self._objective, self._train_mode = batches, objective, train_mode
        self._num_classes, self._cluster = card.num_classes, cluster
        self._graph = compiled(Normalised(objective.student, card.mean, card.std), "the evaluation")

    @property
    def model(self) -> nn.Cell:
        return self._objective.student

    def predictions(self) -> Predictions | None:
        """What the model says of each image, on rank 0."""
        kept: list[Batch] = []
        self(kept=kept)
        return Predictions.gathered(kept, self.batches.indices, self._cluster)

    def __call__(self, *, only_batches: int | None = None, kept: list[Batch] | None = None) -> Evaluation:
        """On all batches, or on the first few; ``kept``: see `evaluate`."""
        batches, cluster, student = self.batches, self._cluster, self._objective.student
        shown = progress(batches, len(batches), "evaluate", images=batches.images, shown=cluster.main)
        student.set_train(False)
        statistics = [parameter for parameter in student.get_parameters() if not parameter.requires_grad]
        cluster.broadcast(statistics)  # batch norm's differ from rank to rank
        try:
            some = itertools.islice(shown, only_batches)
            return evaluate(self._logits, some, self._num_classes, cluster, kept=kept)
        finally:
            self._objective.set_train(self._train_mode)

    def _logits(self, images: np.ndarray) -> np.ndarray:
        return self._graph(to_device(images)).asnumpy()
