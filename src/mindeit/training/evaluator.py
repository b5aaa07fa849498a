"""Evaluation inside a run: the model in training, as it is at that moment, on what is held out."""

from __future__ import annotations

import itertools
from typing import Callable

from mindspore import Tensor

from mindeit.data import EvaluationBatches
from mindeit.objectives import Objective
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.graph import compiled, to_device
from mindeit.runtime.progress import progress
from mindeit.training.evaluate import Evaluation, evaluate


class Evaluator:
    """``train_mode``: in which the objective is left behind."""

    def __init__(
        self, batches: EvaluationBatches, objective: Objective, num_classes: int, cluster: Cluster, train_mode: bool
    ) -> None:
        self.batches, self._objective, self._train_mode = batches, objective, train_mode
        self._num_classes, self._cluster = num_classes, cluster
        self._title = "the evaluation"  # of the first graph; others compile alike

    def __call__(self, *, only_batches: int | None = None) -> Evaluation:
        """Of all batches, or of the first few."""
        batches, cluster, student = self.batches, self._cluster, self._objective.student
        shown = progress(batches, len(batches), "evaluate", images=batches.images, shown=cluster.main)
        student.set_train(False)
        statistics = [parameter for parameter in student.get_parameters() if not parameter.requires_grad]
        cluster.broadcast(statistics)  # batch norm's, of each rank
        try:
            graph: Callable[..., Tensor] = compiled(student, self._title)
            self._title = ""
            some = itertools.islice(shown, only_batches)
            return evaluate(lambda images: graph(to_device(images)).asnumpy(), some, self._num_classes, cluster)
        finally:
            self._objective.set_train(self._train_mode)
