"""1,797 real 8x8 scans of handwritten digits, in the package: a data set that needs no download.

They are the test set of Alpaydin and Kaynak's "Optical Recognition of Handwritten Digits" (UCI Machine Learning
Repository, CC BY 4.0), which scikit-learn has, too. ``digits.npz`` holds them in the order of our split, because
loading scikit-learn would take longer than reading them: a second of every start.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mindeit.data.images import Source

FILE = Path(__file__).with_name("digits.npz")
_TRAINING_SIZE = 1437


class DigitsSource(Source):
    """Fixed stratified split: 1,437 to train, 360 to validate. Images are the 8x8 scans; transforms resize them."""

    class_names = tuple("0123456789")

    def __init__(self, train: bool) -> None:
        chosen = slice(_TRAINING_SIZE) if train else slice(_TRAINING_SIZE, None)
        with np.load(FILE) as file:
            # 0..16 in the scans -> 0..255
            self._pixels = np.rint(file["scans"][chosen] * (255 / 16)).astype(np.uint8)
            self.labels = file["labels"][chosen].astype(np.int32)
        self._split = "train" if train else "val"

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index]).convert("RGB")

    def where(self, index: int) -> str:
        return f"digits {self._split} item {index}"
