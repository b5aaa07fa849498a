"""MindSpore's operators in ONNX: a table of functions (builder, node, inputs ...) -> the name of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Union

import numpy as np
from onnx.helper import np_dtype_to_tensor_dtype

from mindeit.errors import UserError
from mindeit.export.mind_ir import Node, Parameter

if TYPE_CHECKING:
    from mindeit.export.onnx_graph import Builder

Value = Union[str, Parameter]
END = np.iinfo(np.int64).max


def same(kind: str) -> Callable[..., str]:
    """The operator of that name with the same inputs; numbers become tensors."""
    return lambda builder, node, *inputs: builder.emit(kind, node, *inputs)


def reshape(builder: Builder, node: Node, x: Value, shape: Any) -> Value:
    target = [side if side >= 0 else -1 for side in node.shapes[0]]
    if isinstance(x, Parameter):
        return Parameter(x.name, x.values.reshape(target))
    return builder.emit("Reshape", node, x, builder.whole(target))


def transpose(builder: Builder, node: Node, x: Value, axes: tuple[int, ...]) -> Value:
    if isinstance(x, Parameter):
        return Parameter(x.name, x.values.transpose(axes))
    return builder.emit("Transpose", node, x, perm=axes)


def cast(builder: Builder, node: Node, x: Value, kind: int) -> Value:
    if isinstance(x, Parameter):
        return Parameter(x.name, x.values.astype(node.dtypes[0]))
    return builder.emit("Cast", node, x, to=np_dtype_to_tensor_dtype(np.dtype(node.dtypes[0])))


def broadcast_to(builder: Builder, node: Node, x: Value, shape: Any) -> str:
    return builder.emit("Expand", node, x, builder.size(node.shapes[0], node))


def matmul(builder: Builder, node: Node, a: Value, b: Value, transpose_a: bool, transpose_b: bool, *bias: Value) -> str:
    """Two axes, as Linear uses it: Gemm takes transposed inputs and a bias."""
    return builder.emit("Gemm", node, a, b, *bias, transA=int(transpose_a), transB=int(transpose_b))


def batch_matmul(builder: Builder, node: Node, a: Value, b: Value, transpose_a: bool, transpose_b: bool) -> str:
    """Any number of axes; the last two are exchanged where asked for."""
    sides = len(node.shapes[0])
    swapped = (*range(sides - 2), sides - 1, sides - 2)
    a = transpose(builder, node, a, swapped) if transpose_a else a
    b = transpose(builder, node, b, swapped) if transpose_b else b
    return builder.emit("MatMul", node, a, b)


def bias_add(builder: Builder, node: Node, x: Value, bias: Parameter, *format: Any) -> str:
    """Along axis 1."""
    ones = (1,) * (len(node.shapes[0]) - 2)
    return builder.emit("Add", node, x, Parameter(bias.name, bias.values.reshape(-1, *ones)))


def conv(builder: Builder, node: Node, x: Value, weight: Value, *bias: Value) -> str:
    """Stride and dilation count batch and channel too in some versions of MindSpore; the last two are meant."""
    settings = node.attributes
    kind = {0: "pad", 1: "same", 2: "valid"}.get(settings["pad_mode"], settings["pad_mode"])
    top, bottom, left, right = settings["pad"] if kind == "pad" else (0, 0, 0, 0)
    padding = {"auto_pad": "SAME_UPPER"} if kind == "same" else {"pads": (top, left, bottom, right)}
    return builder.emit(
        "Conv",
        node,
        x,
        weight,
        *bias,
        **padding,
        group=settings["group"],
        strides=settings["stride"][-2:],
        dilations=settings["dilation"][-2:],
    )


def batch_norm(builder: Builder, node: Node, x: Value, gain: Value, offset: Value, *others: Any) -> str:
    mean, variance = others[:2]
    epsilon = node.argument(6, "epsilon")
    return builder.emit("BatchNormalization", node, x, gain, offset, mean, variance, epsilon=epsilon)


def layer_norm(builder: Builder, node: Node, x: Value, gain: Value, offset: Value, *settings: Any) -> str:
    axis, epsilon = node.argument(3, "begin_norm_axis"), node.argument(5, "epsilon")
    return builder.emit("LayerNormalization", node, x, gain, offset, axis=axis, epsilon=epsilon)


def softmax(builder: Builder, node: Node, x: Value, *axes: Any) -> str:
    (axis,) = np.atleast_1d(node.argument(1, "axis"))
    return builder.emit("Softmax", node, x, axis=int(axis))


def reduction(kind: str) -> Callable[..., str]:
    def reduce(builder: Builder, node: Node, x: Value, axes: Any, keep: bool, *dtype: None) -> str:
        return builder.emit(kind, node, x, builder.whole(np.atleast_1d(axes)), keepdims=int(keep))

    return reduce


def concat(builder: Builder, node: Node, parts: tuple[Value, ...], axis: int) -> str:
    return builder.emit("Concat", node, *parts, axis=axis)


def split(builder: Builder, node: Node, x: Value, axis: int, count: int) -> tuple[str, ...]:
    return builder.emit("Split", node, x, axis=axis, num_outputs=count, outputs=count)


def strided_slice(builder: Builder, node: Node, x: str, begin: tuple, end: tuple, step: tuple, *masks: int) -> str:
    """``x[1:3, :, 0]``: axes taken whole are left alone, a single place is a Gather, the rest one Slice.

    The bits of the masks say of each axis: from the start, to the end, ..., an ellipsis, a new one, dropped.
    """
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    from_start, to_end, ellipsis, new, dropped = (node.argument(4 + i, name) for i, name in enumerate(names))
    if ellipsis or new:
        raise UserError(f"{node.name}: no ONNX form is known for a slice with an ellipsis or a new axis")
    axes, starts, ends, steps, places = [], [], [], [], []
    for axis in range(len(begin)):
        bit = 1 << axis
        if dropped & bit:
            places.append(axis)
        elif not (from_start & bit and to_end & bit and step[axis] == 1):
            axes.append(axis)
            starts.append(0 if from_start & bit else begin[axis])
            ends.append(END if to_end & bit else end[axis])
            steps.append(step[axis])
    if axes:
        x = builder.emit("Slice", node, x, *map(builder.whole, (starts, ends, axes, steps)))
    for axis in reversed(places):
        x = builder.emit("Gather", node, x, builder.whole(begin[axis]), axis=axis)
    return x


OPERATORS: dict[str, Callable[..., Any]] = {
    **{kind: same(kind) for kind in ("Add", "Sub", "Mul", "Div", "Erf", "Exp", "Gelu", "Sigmoid", "Sqrt", "Tanh")},
    "ReLU": same("Relu"),
    "MatMulExt": same("MatMul"),
    "Reshape": reshape,
    "Transpose": transpose,
    "Cast": cast,
    "BroadcastTo": broadcast_to,
    "Concat": concat,
    "Split": split,
    "StridedSlice": strided_slice,
    "MatMul": matmul,
    "BatchMatMul": batch_matmul,
    "BiasAdd": bias_add,
    "Conv2D": conv,
    "BatchNorm": batch_norm,
    "LayerNorm": layer_norm,
    "Softmax": softmax,
    "ReduceMean": reduction("ReduceMean"),
    "SumExt": reduction("ReduceSum"),
}
