"""An exported ONNX file behind HTTP, with BentoML (https://docs.bentoml.com): requests that come close together share
a batch. Needs neither MindSpore nor torch; `pip install bentoml` first.

    MODEL=deit_tiny.onnx bentoml serve scripts.serve:Classifier --port 3000
    curl -F pictures=@bird.jpg http://localhost:3000/classify
"""
from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Union

import bentoml
import numpy as np

from mindeit import Predictor, UserError


@bentoml.service(traffic={"timeout": 30})
class Classifier:
    def __init__(self) -> None:
        self.predictor = Predictor(os.environ["MODEL"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def classify(self, pictures: list[Path]) -> list[dict[str, Any]]:
        """For each picture its five likeliest classes, best first, or what is wrong with it: others may share the
        batch."""
        pixels = [self._pixels(picture) for picture in pictures]
        readable = [each for each in pixels if isinstance(each, np.ndarray)]
        rows = iter(self.predictor.logits(np.stack(readable)) if readable else ())
        return [{"error": each} if isinstance(each, str) else {"classes": self._best(next(rows))} for each in pixels]

    def _pixels(self, picture: Path) -> Union[np.ndarray, str]:
        try:
            return self.predictor.pixels(picture)
        except UserError:
            return "not a picture"

    def _best(self, logits: np.ndarray) -> list[dict[str, Any]]:
        return [asdict(guess) for guess in self.predictor.best(logits, 5)]
