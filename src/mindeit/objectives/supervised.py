"""Learning from labels alone."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor

from mindeit.objectives.objective import Objective


class Supervised(Objective):
    """The criterion alone.

    A distilled student learns as DistillationLoss of facebookresearch/deit teaches it without a teacher: in training
    its class head alone (the other one stays as it is), in evaluation mode (``set_train(False)``) the heads' mean.
    """

    def construct(self, images: Tensor, targets: Tensor) -> Tensor:
        outputs = self.student(images)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return self.criterion(logits.astype(ms.float32), targets)
