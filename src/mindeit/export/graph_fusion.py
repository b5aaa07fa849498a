"""Replaces groups of operators by one operator."""

from __future__ import annotations

from typing import Any

from mindeit.export.mind_ir import Graph, Node, Result

GELU = "Mul(Add(0.5, Mul(0.5, Erf(Mul(0.7071, x)))), x)"
_DEPTH = 5  # of the longest expression looked for


def simplify(graph: Graph) -> Graph:
    """GELU as one operator, biases inside products and convolutions, and nothing that no output needs."""
    for node in graph.nodes:
        _name_gelu(node)
        _take_bias(node)
    needed: set[Node] = set()
    _need(graph.outputs, needed)
    for node in reversed(graph.nodes):
        if node in needed:
            _need(node.inputs, needed)
    graph.nodes = [node for node in graph.nodes if node in needed]
    return graph


def _need(values: Any, needed: set[Node]) -> None:
    for value in values:
        if isinstance(value, tuple):
            _need(value, needed)
        elif isinstance(value, Result):
            needed.add(value.node)


def _name_gelu(node: Node) -> None:
    for x in node.inputs if node.kind == "Mul" else ():
        if isinstance(x, Result) and _spelled(Result(node), x, _DEPTH) == GELU:
            node.kind, node.inputs = "Gelu", (x,)
            return


def _spelled(value: Any, x: Result, depth: int) -> str:
    """The expression that ends in ``value``, written in ``x``; operands in alphabetical order."""
    if value == x:
        return "x"
    if isinstance(value, (int, float)):
        return f"{value:.4g}"
    if depth == 0 or not isinstance(value, Result):
        return "?"
    operands = sorted(_spelled(operand, x, depth - 1) for operand in value.node.inputs)
    return f"{value.node.kind}({', '.join(operands)})"


def _take_bias(node: Node) -> None:
    """A bias after MatMul (a, b, transpose_a, transpose_b) or Conv2D (x, weight) becomes its last input."""
    if node.kind == "BiasAdd" and isinstance(node.inputs[0], Result):
        source, bias = node.inputs[0].node, node.inputs[1]
        if source.kind in ("MatMul", "Conv2D"):
            node.kind, node.name, node.attributes = source.kind, source.name, source.attributes
            node.inputs = (*source.inputs, bias)
