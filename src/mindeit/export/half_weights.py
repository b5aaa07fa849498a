"""An ONNX file of half the size: its weights are stored as halves, and computing stays in float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

SMALLEST = 1024  # values; what is smaller (norms, biases) stays as it is
_END = ":half"


def halve(model: onnx.ModelProto) -> None:
    """Each large float32 tensor becomes a float16 one and a Cast, which a runtime computes once, as it starts."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALLEST:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + _END))
        casts.append(helper.make_node("Cast", [name + _END], [name], name + "/Cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
