"""ONNX files of other projects: one float32 input (batch, 3, S, S), logits as their first output."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mindeit.errors import UserError
from mindeit.files import PathLike, existing_file


class ForeignOnnx:
    """``describes_itself``: the file is one of export.py after all."""

    def __init__(self, path: PathLike) -> None:
        import onnxruntime  # optional: only teachers of other projects need it

        self.path = Path(existing_file(path))
        onnxruntime.set_default_logger_severity(3)
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base
            raise UserError(f"{path}: onnxruntime cannot load it ({str(error).strip().splitlines()[0]})") from None
        taken = self._session.get_inputs()
        kinds = [(tensor.type, len(tensor.shape)) for tensor in taken]
        if kinds not in ([("tensor(float)", 4)], [("tensor(uint8)", 4)]):  # the second of export.py --preprocess
            given = ", ".join(f"{tensor.type} {tuple(tensor.shape)}" for tensor in taken)
            raise UserError(f"{path}: takes {given}; allowed: one input of images, float32 (batch, 3, S, S)")
        self._name, self._shape = taken[0].name, taken[0].shape

    @property
    def describes_itself(self) -> bool:
        return "preprocess" in self._session.get_modelmeta().custom_metadata_map

    @property
    def image_size(self) -> int | None:
        """What the file fixes, if it does."""
        side = self._shape[-1]
        return side if isinstance(side, int) else None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S) -> (batch, classes)."""
        count, size = len(images), self._shape[0] if isinstance(self._shape[0], int) else len(images)
        if count % size:
            images = np.concatenate([images, np.zeros((size - count % size, *images.shape[1:]), images.dtype)])
        try:
            parts = [
                self._session.run(None, {self._name: images[start : start + size]})[0]
                for start in range(0, len(images), size)
            ]
        except Exception as error:  # its exceptions have no common base
            raise UserError(f"{self.path}: cannot be run on {images.shape} ({str(error).splitlines()[0]})") from None
        return np.concatenate(parts)[:count]
