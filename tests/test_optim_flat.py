"""Flat buffers: what is in them, in which order, and that a model which keeps halves trains as one that casts them."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor
from training_runs import one_block

from mindeit.kernels import precision
from mindeit.models.registry import build
from mindeit.objectives import Supervised
from mindeit.objectives.losses import cross_entropy
from mindeit.optim.flat import FlatParameters
from mindeit.optim.groups import Trained, trained_parameters
from mindeit.training.loss_scale import LossScale, StepState
from mindeit.training.step import Gradients

FAMILIES = (
    "deit_mini_distilled_patch8_32",
    "deit_mini_patch8_32_LS",
    "cait_mini_patch8_32",
    "resmlp_mini_patch8_32",
    "patchconvnet_mini_32",
    "regnety_mini_32",
)


def trained() -> list[Trained]:
    """Two shapes that alternate, one of them at two decays."""
    rng = np.random.default_rng(0)
    rows = (("a", (2, 3), 0.1), ("b", (4,), 0.0), ("c", (2, 3), 0.1), ("d", (2, 3), 0.0), ("e", (4,), 0.0))
    return [
        Trained(Parameter(Tensor(rng.standard_normal(shape).astype(np.float32)), name=name), decay, 1.0)
        for name, shape, decay in rows
    ]


def test_buffers_hold_equal_decays_and_within_them_equal_shapes_side_by_side():
    flat = FlatParameters(trained())
    assert [(group.decay, group.size) for group in flat.groups] == [(0.1, 12), (0.0, 14)]
    assert [parameter.name for parameter in flat.parameters] == ["a", "c", "b", "e", "d"]
    assert [(stack.shape, stack.count) for group in flat.groups for stack in group.stacks] == [
        ((2, 3), 2),
        ((4,), 2),
        ((2, 3), 1),
    ]
    expected = np.concatenate([parameter.asnumpy().ravel() for parameter in flat.parameters])
    assert np.array_equal(np.concatenate([buffer.asnumpy() for buffer in flat.weights]), expected)


def test_values_come_out_by_name_and_go_in_again():
    members = trained()
    flat = FlatParameters(members)
    values = {name: value.copy() for name, value in flat.values(flat.weights).items()}
    assert values.keys() == {one.parameter.name for one in members}
    assert all(np.array_equal(values[one.parameter.name], one.parameter.asnumpy()) for one in members)
    flat.load(flat.weights, {name: value + 1 for name, value in values.items()})
    assert all(np.array_equal(value, values[name] + 1) for name, value in flat.values(flat.weights).items())


def test_gradients_join_in_the_order_of_the_buffers(mode):
    flat = FlatParameters(trained())
    gradients = ms.mutable(
        tuple(Tensor(np.full(one.shape, number, np.float32)) for number, one in enumerate(flat.parameters))
    )
    joined = np.concatenate([buffer.asnumpy() for buffer in flat.join(gradients)])
    sizes = [one.size for one in flat.parameters]
    assert np.array_equal(joined, np.repeat(np.arange(5, dtype=np.float32), sizes))


def test_parameters_are_copies_of_their_buffers_in_their_own_type(mode):
    members = trained()
    flat = FlatParameters(members, lambda parameter: ms.float16 if parameter.name == "a" else ms.float32)
    assert [one.parameter.dtype for one in members] == [ms.float16] + [ms.float32] * 4
    assert len(flat.groups) == 3
    flat.load(flat.weights, {name: value / 3 for name, value in flat.values(flat.weights).items()})
    flat()
    for name, value in flat.values(flat.weights).items():
        own = next(one.parameter for one in members if one.parameter.name == name)
        assert np.array_equal(own.asnumpy(), value.astype(own.asnumpy().dtype)), name


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if number else ()) for number, name in enumerate(FAMILIES)]
)
def test_a_model_that_keeps_halves_has_the_gradients_of_one_that_casts_them(name, graph_mode):
    found = []
    for keeps in (False, True):
        ms.set_seed(3)
        with one_block(*FAMILIES[:-1]):
            model = precision.apply(build(name, num_classes=5), "O2")
        stored = precision.storage(model, "O2") if keeps else lambda parameter: ms.float32
        flat = FlatParameters(trained_parameters(model, 0.05), stored)
        halves = [one.name for one in flat.parameters if one.dtype == ms.float16]
        assert bool(halves) == keeps and all(name.endswith((".weight", ".bias")) for name in halves)
        objective = Supervised(model, cross_entropy).set_train(True)
        gradients = Gradients(objective, flat, None, StepState(LossScale(1024.0)))
        rng = np.random.default_rng(1)
        images = Tensor(rng.standard_normal((4, 3, 32, 32)).astype(np.float32))
        loss, joined = gradients(images, Tensor(np.eye(5, dtype=np.float32)[:4]), Tensor(np.zeros((1, 4), np.float32)))
        values = {}
        for group, buffer in zip(flat.groups, joined):
            ends = np.cumsum([p.size for stack in group.stacks for p in stack.parameters])
            names = [p.name for stack in group.stacks for p in stack.parameters]
            values.update(zip(names, np.split(buffer.asnumpy(), ends)))
        found.append((float(loss), values))
    assert found[0][0] == found[1][0]
    assert found[0][1].keys() == found[1][1].keys()
    assert [key for key, value in found[0][1].items() if not np.array_equal(value, found[1][1][key])] == []
