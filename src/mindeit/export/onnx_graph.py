"""An ONNX model from a graph read from MindIR."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mindeit.errors import UserError
from mindeit.export.mind_ir import Graph, Input, Node, Parameter, Result, Shape
from mindeit.export.onnx_operators import OPERATORS

OPSET = 20  # the first with Gelu; LayerNormalization came with 17
IR_VERSION = 9  # that of opset 20: every onnxruntime that knows the opset takes it
BATCH = "batch"


def build(graph: Graph, name: str, outputs: Sequence[str], metadata: Mapping[str, str]) -> onnx.ModelProto:
    """``outputs`` names the graph's results; parameters keep their names."""
    builder = Builder(graph)
    for node in graph.nodes:
        if node.kind not in OPERATORS:
            raise UserError(f"{node.name}: no ONNX form is known for MindSpore's {node.kind}; allowed: --format MINDIR")
        results = OPERATORS[node.kind](builder, node, *map(builder.resolved, node.inputs))
        for index, result in enumerate(results if isinstance(results, tuple) else (results,)):
            builder.values[Result(node, index)] = result
    for result, output in zip(graph.outputs, outputs):
        builder.nodes.append(helper.make_node("Identity", [builder.tensor(builder.resolved(result))], [output], output))
    model = helper.make_model(
        builder.graph(name, outputs),
        producer_name="mindeit",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    return model


class Builder:
    """What operators need: `emit` a node, have a number or parameter as a `tensor`, know the batch.

    Values are names of tensors, or parameters: what only reshapes or transposes a parameter is done here and now.
    """

    def __init__(self, source: Graph) -> None:
        self.source = source
        self.nodes: list[onnx.NodeProto] = []
        self.values: dict[Result, str | Parameter] = {}
        self.initializers: dict[str, np.ndarray] = {}
        self._used: Counter[str] = Counter()
        self._batch = ""

    def resolved(self, value: Any) -> Any:
        """The name of a node's input; plain numbers and settings stay as they are."""
        if isinstance(value, tuple):
            return tuple(map(self.resolved, value))
        if isinstance(value, Input):
            return value.name
        return self.values[value] if isinstance(value, Result) else value

    def emit(self, kind: str, node: Node, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Append an operator named after where ``node`` stands in the model; the name of its result, or their names."""
        name = self._unique(f"{node.name}/{kind}")
        names = [name] if outputs == 1 else [f"{name}:{number}" for number in range(outputs)]
        given = [self.tensor(value, node.dtypes[0]) for value in inputs]
        self.nodes.append(helper.make_node(kind, given, names, name, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def tensor(self, value: Any, dtype: type = np.float32) -> str:
        """The name of a tensor that holds ``value``; a plain number takes the type of what it is combined with."""
        if isinstance(value, str):
            return value
        if isinstance(value, Parameter):
            name, array = value.name, value.values
        else:
            name, array = "constant", np.asarray(value, None if isinstance(value, np.ndarray) else dtype)
        known = next((key for key in self._alike(name) if _same(self.initializers[key], array)), None)
        if known is None:
            known = self._unique(name)
            self.initializers[known] = array
        return known

    def whole(self, numbers: Sequence[int]) -> np.ndarray:
        """Shapes, axes and the like."""
        return np.asarray(numbers, np.int64)

    def size(self, shape: Shape, node: Node) -> Any:
        """A shape as an operator takes it: numbers, or with an open batch a tensor that the input's shape decides."""
        if min(shape, default=0) >= 0:
            return self.whole(shape)
        if any(side < -1 for side in shape):
            raise UserError(f"{node.name}: no ONNX form is known for {node.kind} to {shape}; allowed: --batch N")
        if not self._batch:
            self._batch = self.emit("Shape", node, self.source.inputs[0].name, start=0, end=1)
        at = shape.index(-1)
        parts = (self.whole(shape[:at]), self._batch, self.whole(shape[at + 1 :]))
        return self.emit("Concat", node, *(part for part in parts if isinstance(part, str) or part.size), axis=0)

    def graph(self, name: str, outputs: Sequence[str]) -> onnx.GraphProto:
        def described(name: str, shape: Shape, dtype: type) -> onnx.ValueInfoProto:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return helper.make_tensor_value_info(name, kind, [BATCH if side < 0 else side for side in shape])

        inputs = [described(entry.name, entry.shape, entry.dtype) for entry in self.source.inputs]
        results = [
            (result.node.shapes[result.index], result.node.dtypes[result.index]) for result in self.source.outputs
        ]
        infos = [described(output, *result) for output, result in zip(outputs, results)]
        weights = [numpy_helper.from_array(array, key) for key, array in self.initializers.items()]
        return helper.make_graph(self.nodes, name, inputs, infos, weights)

    def _alike(self, name: str) -> list[str]:
        return [key for key in self.initializers if key == name or key.startswith(f"{name}_")]

    def _unique(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name]}"


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and (a is b or np.array_equal(a, b))


def save(model: onnx.ModelProto, path: Path, weights: Path | None) -> None:
    """Write and check the file; ``weights``: the file beside it for what is too large for one."""
    name = None if weights is None else weights.name
    onnx.save_model(model, str(path), save_as_external_data=weights is not None, location=name)
    onnx.checker.check_model(str(path), full_check=True)
