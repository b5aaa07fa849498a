"""An ONNX file with its products in eight bits, made of one in float32 by onnxruntime's quantization."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from mindeit.errors import UserError
from mindeit.export.file_digest import EMPTY, weights_beside
from mindeit.weights.integrity import DIGEST_KEY

PRODUCTS = ("MatMul", "Gemm")
_LEAST = 0.5  # of the weights, or there is little to gain
# Weights by output channel, in seven of the eight bits: processors without VNNI (AVX2) add two products of bytes up in
# sixteen bits, where larger weights overflow in silence. The products of attention have no weights, and stay.
_COMMON: dict[str, Any] = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
_OPTIONS = {"MatMulConstBOnly": True}


def quantize(source: Path, target: Path, batches: Iterable[np.ndarray] | None) -> str:
    """Write ``target``; returns how. ``batches``, as the file takes them, fix the range of activations (static, with
    convolutions in eight bits as well); None: each call finds its own (dynamic). Norms, softmax and GELU stay."""
    if weights_beside(source).exists():
        raise UserError("precision is int8, but the model is too large for one file; allowed: fp32 or fp16")
    with _quiet():
        if batches is None:
            _check_products(source)
            quantize_dynamic(source, target, op_types_to_quantize=list(PRODUCTS), extra_options=_OPTIONS, **_COMMON)
            return "dynamic"
        quantize_static(
            source,
            target,
            _Reader(source, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*PRODUCTS, "Conv"],
            activation_type=QuantType.QUInt8,
            extra_options=_OPTIONS,
            **_COMMON,
        )
        return "static"


def annotate(path: Path, texts: Mapping[str, str]) -> None:
    """Change entries of the metadata; the digest has to be written anew."""
    model = onnx.load(str(path))
    known = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    helper.set_model_props(model, {**known, **texts, DIGEST_KEY: EMPTY})
    onnx.save(model, str(path))


class _Reader(CalibrationDataReader):
    def __init__(self, source: Path, batches: Iterable[np.ndarray]) -> None:
        self._name = onnx.load(str(source)).graph.input[0].name
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _check_products(source: Path) -> None:
    """Refuse networks of convolutions, which the dynamic way leaves alone."""
    graph = onnx.load(str(source)).graph
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in graph.initializer}
    inside = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    share = sum(size for name, size in sizes.items() if name in inside) / max(1, sum(sizes.values()))
    if share < _LEAST:
        raise UserError(
            f"{graph.name} holds {100 * share:.0f} % of its weights in matrix products, the rest is of convolutions, "
            "which need --calibrate FOLDER of images for int8"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to optimise the graph first, which `graph_fusion` has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
