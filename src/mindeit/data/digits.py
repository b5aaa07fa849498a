"""1,797 real 8x8 scans of handwritten digits that ship with scikit-learn: a data set that needs no download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mindeit.data.images import Source
from mindeit.errors import UserError

_VALIDATION_SIZE = 360


class DigitsSource(Source):
    """Fixed stratified split: 1,437 to train, 360 to validate. Images are the 8x8 scans; transforms resize them."""

    class_names = tuple("0123456789")

    def __init__(self, train: bool) -> None:
        try:
            from sklearn import datasets, model_selection  # optional: for this data set alone
        except ImportError as error:
            raise UserError("dataset 'digits' needs scikit-learn: pip install scikit-learn") from error
        scans, labels = datasets.load_digits(return_X_y=True)
        # 0..16 in the scans -> 0..255
        pixels = np.rint(scans.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        rows = model_selection.train_test_split(
            np.arange(len(labels)), test_size=_VALIDATION_SIZE, stratify=labels, random_state=0
        )
        chosen = rows[0] if train else rows[1]
        self._pixels, self.labels = pixels[chosen], labels[chosen].astype(np.int32)
        self._split = "train" if train else "val"

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index]).convert("RGB")

    def where(self, index: int) -> str:
        return f"digits {self._split} item {index}"
