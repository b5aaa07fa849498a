"""MindIR: written by MindSpore, and read as a plain list of operators."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.common.initializer import Zero
from mindspore.train.mind_ir_pb2 import ModelProto

from mindeit.errors import UserError

Shape = tuple[int, ...]  # in a graph of any batch, -k stands for k times the batch
TYPES = {1: np.float32, 2: np.uint8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}
# Variants of one operator: MindSpore has its own for a tensor and a number.
_SAME = {"Adds": "Add", "Subs": "Sub", "Muls": "Mul", "Divs": "Div", "RealDiv": "Div"}
# So many images stand for any number while a model is traced; nothing of that size is made. No side of an image or of
# a layer is a multiple of it, so what is, is the batch, or the batch several times. The second is for 10007 classes.
_ANY_BATCH = (10007, 10009)


@dataclass(frozen=True)
class Parameter:
    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Input:
    name: str
    shape: Shape
    dtype: type


@dataclass(eq=False)
class Node:
    """``inputs`` are parameters, inputs, results of nodes, tuples of these, and plain numbers, texts and tuples."""

    kind: str
    name: str
    inputs: tuple
    attributes: dict[str, Any]
    shapes: list[Shape]
    dtypes: list[type]

    def argument(self, position: int, name: str) -> Any:
        """MindSpore keeps settings among the inputs or, for some operators and versions, as attributes."""
        return self.inputs[position] if len(self.inputs) > position else self.attributes[name]


@dataclass(frozen=True)
class Result:
    """One output of a node."""

    node: Node
    index: int = 0


@dataclass
class Graph:
    inputs: list[Input]
    outputs: list[Any] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)  # in the order of computing


def write(model: nn.Cell, shape: Sequence[int | None], dtype: type, path: Path, weights: Path) -> None:
    """``shape`` of the input; None leaves the batch open. More than 1 GiB of parameters go into ``weights``, a file in
    the same folder, not into one of MindSpore's naming."""
    _export(model, shape, dtype, path)
    if not path.exists():
        graph, folder = (path.with_name(path.stem + ending) for ending in ("_graph.mindir", "_variables"))
        content = _read(graph)
        for parameter in content.graph.parameter:
            parameter.external_data.location = weights.name
        path.write_bytes(content.SerializeToString())
        graph.unlink()
        (data,) = folder.iterdir()
        data.rename(weights)
        folder.rmdir()


def trace(model: nn.Cell, shape: Sequence[int | None], dtype: type, scratch: Path) -> Graph:
    """The operators that ``model`` runs. Loads, tuples and what orders side effects are resolved.

    ``shape`` of the input; None leaves the batch open. The folder ``scratch`` has to have room for the parameters.
    """
    parameters = {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}
    sides = {side for array in parameters.values() for side in array.shape}
    many = next(prime for prime in _ANY_BATCH if all(side % prime for side in sides))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        _export(model, [many if size is None else size for size in shape], dtype, Path(folder, "model.mindir"))
        (path,) = Path(folder).glob("*.mindir")  # model_graph.mindir of a large model
        content = _read(path)
    if content.functions:
        raise UserError(f"the model's graph calls other graphs ({content.functions[0].name}); allowed: --format MINDIR")
    graph = _Reader(content, parameters).graph()
    return _of_any_batch(graph, many) if None in shape else graph


def _export(model: nn.Cell, shape: Sequence[int | None], dtype: type, path: Path) -> None:
    kind = ms.uint8 if dtype is np.uint8 else ms.float32
    without_data = {} if None in shape else {"init": Zero()}
    images = ms.Tensor(shape=list(shape), dtype=kind, **without_data)
    ms.export(model, images, file_name=str(path), file_format="MINDIR")


def _read(path: Path) -> Any:
    content = ModelProto()
    content.ParseFromString(path.read_bytes())
    return content


class _Reader:
    def __init__(self, content: Any, parameters: Mapping[str, np.ndarray]) -> None:
        self.source, self.parameters = content.graph, parameters
        self.primitives = {primitive.name: primitive for primitive in content.primitives}
        self.values: dict[str, Any] = {}

    def graph(self) -> Graph:
        source = self.source
        graph = Graph([Input(_leaf(entry.name), *_tensor_type(entry.tensor[0])) for entry in source.input])
        self.values.update(zip((entry.name for entry in source.input), graph.inputs))
        for parameter in source.parameter:
            name = _leaf(parameter.name)
            self.values[parameter.name] = Parameter(name, self.parameters[name])
        for entry in source.node:
            self.values[entry.output[0]] = self._resolved(entry, graph.nodes)
        results = [self.values[entry.name] for entry in source.output]
        graph.outputs = list(results[0]) if isinstance(results[0], tuple) else results
        return graph

    def _resolved(self, entry: Any, nodes: list[Node]) -> Any:
        if entry.op_type == "Constant":
            return _value(entry.attribute[0])
        inputs = tuple(self.values[name] for name in entry.input)
        primitive = self.primitives[entry.op_type.removeprefix("REF::")]
        kind = _SAME.get(primitive.op_type, primitive.op_type)
        if kind in ("Load", "Depend"):
            return inputs[0]
        if kind == "UpdateState":
            return None
        if kind == "MakeTuple":
            return inputs
        if kind == "TupleGetItem":
            return inputs[0][inputs[1]] if isinstance(inputs[0], tuple) else Result(inputs[0].node, inputs[1])
        place = _place(entry.domain, inputs)
        shapes, dtypes = zip(*_output_types(entry))
        attributes = {attribute.name: _value(attribute) for attribute in primitive.attribute}
        nodes.append(Node(kind, place, inputs, attributes, list(shapes), list(dtypes)))
        return Result(nodes[-1])


def _leaf(name: str) -> str:
    """``1078_860_..._construct_303:blocks.0.norm1.gamma`` -> ``blocks.0.norm1.gamma``"""
    return name.rpartition(":")[2]


def _place(scope: str, inputs: tuple) -> str:
    """``Default/blocks-CellList/0-Block/attn-Attention/qkv-Linear/MatMul-op0`` -> ``blocks/0/attn/qkv``

    MindSpore shares operators without parameters, and then knows the place of one's first use only: such an operator
    is called after what it takes its last input from. ``model`` in front is what `wrapper` calls the network: operators
    that were compiled before it was wrapped lack that.
    """
    sources = [value.node.name for value in inputs if isinstance(value, Result)]
    if sources and not any(isinstance(value, Parameter) for value in inputs):
        return sources[-1]
    places = [part.partition("-")[0] for part in scope.split("/")[1:-1]]
    return "/".join(itertools.dropwhile("model".__eq__, places))


def _tensor_type(tensor: Any) -> tuple[Shape, type]:
    return tuple(tensor.dims), TYPES[tensor.data_type]


def _output_types(entry: Any) -> Iterator[tuple[Shape, type]]:
    recorded = next(attribute for attribute in entry.attribute if attribute.name == "shape")
    for value in recorded.values or [recorded]:
        yield _tensor_type(value.tensors[0])


def _value(attribute: Any) -> Any:
    """Members of a tuple lie in fields of their own (``ints``), single values in others (``i``)."""
    kind = attribute.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[attribute.type].name
    if kind in ("TUPLE", "LIST"):
        return tuple(_value(member) for member in attribute.values)
    if kind == "TENSORS":
        shape, dtype = _tensor_type(attribute.tensors[0])
        values: np.ndarray = np.frombuffer(attribute.tensors[0].raw_data, dtype).reshape(shape)
        return values if shape else values.item()
    if kind == "STRING":
        text = attribute.strings[0] if attribute.strings else attribute.s
        return text.decode() if isinstance(text, bytes) else text
    if kind in ("FLOAT", "DOUBLE"):
        return [*attribute.floats, *attribute.doubles, attribute.f if kind == "FLOAT" else attribute.d][0]
    if kind == "BOOL" or kind.lstrip("U").startswith("INT"):
        number = attribute.ints[0] if attribute.ints else attribute.i
        return bool(number) if kind == "BOOL" else number
    return None


def _of_any_batch(graph: Graph, many: int) -> Graph:
    """``graph``, which was traced for ``many`` images."""
    graph.inputs = [Input(entry.name, _with_batch(entry.shape, many), entry.dtype) for entry in graph.inputs]
    for node in graph.nodes:
        node.shapes = [_with_batch(shape, many) for shape in node.shapes]
    return graph


def _with_batch(shape: Shape, many: int) -> Shape:
    return tuple(side if side % many else -side // many for side in shape)
