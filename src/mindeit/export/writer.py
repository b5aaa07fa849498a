"""Writes a model as a file for other runtimes, kept only if it gives the model's results."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindeit.errors import UserError
from mindeit.export import mind_ir
from mindeit.export.attention_output import check_attention
from mindeit.export.file_digest import EMPTY, sidecar, weights_beside, write_digest
from mindeit.export.graph_fusion import simplify
from mindeit.export.metadata import ATTENTION, BOTH, FEATURES, Description
from mindeit.export.verify import LIMITS, compare, difference, images, normalised
from mindeit.export.wrapper import interface, results_of
from mindeit.files import PathLike, atomic_group, write_json
from mindeit.runtime.device import operator_by_operator
from mindeit.weights.integrity import DIGEST_KEY

LARGEST_ONNX = (1 << 31) - (1 << 24)  # bytes of parameters; with its operators a file has to stay below 2 GiB


class ExportMismatch(Exception):
    """The file does not give the model's results, or none at all."""


def export(model: nn.Cell, description: Description, target: PathLike, kind: str) -> None:
    """Write ``target`` and the files beside it, and say so.

    `ExportMismatch`, and nothing is written, if its results are not the model's. ``model`` is changed: its kernels, and
    with fp16 its parameters.
    """
    card = description.card
    check_outputs(model, description)
    with atomic_group(target) as temporary:
        write(model, description, temporary, kind)
        sizes = [file.stat().st_size for file in (temporary, weights_beside(temporary)) if file.exists()]
    written = target if len(sizes) == 1 else f"{target} and {weights_beside(Path(target)).name}"
    print(f"wrote {written}: {card.model}, {sum(sizes) / 1e6:.1f} MB, {description.as_dict()['input']}")


def write(model: nn.Cell, description: Description, path: Path, kind: str) -> None:
    """As `export`, in a folder that whoever calls throws away if this fails."""
    wanted = _results(model, description)
    _WRITERS[kind](interface(model, description), description, path)
    write_digest(path)
    _prove(path, description, wanted, kind)


def check_outputs(model: nn.Cell, description: Description) -> None:
    name = description.card.model
    if description.heads == BOTH and not model.distilled:
        raise UserError(f"heads is both, but {name} has one head; allowed: mean")
    if description.heads == BOTH and description.kinds == (ATTENTION,):
        raise UserError("heads is both, which attention alone does not have; leave it out")
    if ATTENTION in description.kinds:
        check_attention(model, name)
    if FEATURES in description.asked and model.token_per_class:
        raise UserError(f"{name} has a token for each class, no common features; allowed: --outputs logits")


def _results(model: nn.Cell, description: Description) -> list[np.ndarray]:
    """The model's own results for the images of `verify`."""
    card = description.card
    batch = normalised(images(card.image_size), card.mean, card.std)
    cell = results_of(model, description).set_train(False)
    with operator_by_operator():  # a graph would have to be compiled for them
        wanted = _arrays(cell(Tensor(batch)))
        if description.batch is None:
            _check_batches(_arrays(cell(Tensor(batch[:2]))), [result[:2] for result in wanted], description)
    return wanted


def _arrays(results: Tensor | tuple[Tensor, ...]) -> list[np.ndarray]:
    return [result.asnumpy().copy() for result in (results if isinstance(results, tuple) else (results,))]


def _check_batches(of_two: list[np.ndarray], of_three: list[np.ndarray], description: Description) -> None:
    """A model that looks at the size of its batch, or mixes images, has no graph for any number of them."""
    shapes_agree = [a.shape for a in of_two] == [b.shape for b in of_three]
    if not shapes_agree or difference(of_two, of_three, description) > LIMITS["fp32"]:
        raise UserError("the model computes otherwise for another batch; allowed: --batch N")


def _prove(path: Path, description: Description, wanted: list[np.ndarray], kind: str) -> None:
    if kind == "AIR":
        print("not verified: only Ascend's tools load AIR", flush=True)
        return
    try:
        report = compare(path, description, wanted)
    except UserError as error:
        raise ExportMismatch(str(error)) from None
    print(report, flush=True)
    if not report.ok:
        raise ExportMismatch("its results are not the model's")


def _write_mind_ir(cell: nn.Cell, description: Description, path: Path) -> None:
    mind_ir.write(cell, description.shape, description.dtype, path, weights_beside(path))
    write_json(sidecar(path), description.as_dict())


def _write_air(cell: nn.Cell, description: Description, path: Path) -> None:
    images = Tensor(np.zeros((description.batch or 1, *description.image_shape), description.dtype))
    ms.export(cell, images, file_name=str(path), file_format="AIR")
    write_json(sidecar(path), description.as_dict())


def _write_onnx(cell: nn.Cell, description: Description, path: Path) -> None:
    from mindeit.export import half_weights, onnx_graph  # need onnx, which MindIR does without

    graph = simplify(mind_ir.trace(cell, description.shape, description.dtype, path.parent))
    texts = {**description.as_texts(), DIGEST_KEY: EMPTY}
    model = onnx_graph.build(graph, description.card.model, description.outputs, texts)
    if description.precision == "fp16-weights":
        half_weights.halve(model)
    held = sum(parameter.nbytes for parameter in cell.get_parameters())
    onnx_graph.save(model, path, weights_beside(path) if held > LARGEST_ONNX else None)


_WRITERS = {"MINDIR": _write_mind_ir, "ONNX": _write_onnx, "AIR": _write_air}
