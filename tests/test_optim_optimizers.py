"""Each optimizer against PyTorch's, or against its paper's formula in float64, in both modes."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
import pytest
from conftest import graph_is_slow
from mindspore import Parameter, Tensor, nn

from mindeit.errors import UserError
from mindeit.optim import create
from mindeit.optim.base import bias_correction, single
from mindeit.optim.flat import FlatParameters
from mindeit.optim.groups import Trained

STEPS = 8
NAMES = ("adamw", "lamb", "sgd", "lion", "adan")
# name, shape, decay, lr_scale: two groups, one of them at half the learning rate, and a weight that starts at zero
CASES = (
    ("weight", (7, 5), 0.05, 1.0),
    ("bias", (7,), 0.0, 1.0),
    ("early.weight", (3, 2, 4), 0.05, 0.5),
    ("early.bias", (3,), 0.0, 0.5),
    ("zero.weight", (4, 4), 0.05, 1.0),
)


def start():
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape).astype(np.float32) for _, shape, _, _ in CASES]
    values[-1][:] = 0
    return values


def gradients(step):
    """The first are large enough for LAMB to clip, the later ones are not; signs change."""
    rng = np.random.default_rng(step)
    size = 3.0 / step**2
    return [(size * rng.standard_normal(shape)).astype(np.float32) for _, shape, _, _ in CASES]


def rate(step):
    return 1e-3 * (1 + step % 5)


def fresh(name, values=None, **options):
    trained = [
        Trained(Parameter(Tensor(value), name=case[0]), case[2], case[3])
        for case, value in zip(CASES, values or start())
    ]
    flat = FlatParameters(trained)
    return Moved(create(name, flat, **options), flat), [one.parameter for one in trained]


class Moved(nn.Cell):
    """An optimizer whose parameters follow their buffers, as in a training step."""

    def __init__(self, optimizer, flat):
        super().__init__(auto_prefix=False)
        self.optimizer, self.flat = optimizer, flat

    def construct(self, grads, lr, step, moving):
        self.optimizer(self.flat.join(grads), lr, step, moving)
        self.flat()
        return True

    @property
    def state(self):
        return [buffer for slot in self.optimizer.state.values() for buffer in slot]


def update(optimizer, step, grads=None, moving=True):
    named = dict(zip([case[0] for case in CASES], grads or gradients(step)))
    tensors = ms.mutable(tuple(Tensor(named[parameter.name]) for parameter in optimizer.flat.parameters))
    optimizer(tensors, Tensor(rate(step), ms.float32), Tensor(step, ms.float32), Tensor(moving))


def ours(name, **options):
    optimizer, parameters = fresh(name, **options)
    for step in range(1, STEPS + 1):
        update(optimizer, step)
    return [parameter.asnumpy() for parameter in parameters]


def largest_gap(found, expected):
    return max(float(np.abs(one - np.asarray(other, np.float64)).max()) for one, other in zip(found, expected))


def by_torch(kind, **options):
    torch = pytest.importorskip("torch")
    tensors = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in start()]
    groups = [{"params": [tensor], "weight_decay": case[2]} for tensor, case in zip(tensors, CASES)]
    optimizer = getattr(torch.optim, kind)(groups, lr=1.0, **options)
    for step in range(1, STEPS + 1):
        for tensor, grad, group, case in zip(tensors, gradients(step), optimizer.param_groups, CASES):
            tensor.grad, group["lr"] = torch.from_numpy(grad), rate(step) * case[3]
        optimizer.step()
    return [tensor.detach().numpy() for tensor in tensors]


def by_formula(formula):
    """``formula(weight, grad, memory, lr, decay, step)`` -> weight, in float64; ``memory`` starts empty."""
    weights, memories = [value.astype(np.float64) for value in start()], [{} for _ in CASES]
    for step in range(1, STEPS + 1):
        grads = [grad.astype(np.float64) for grad in gradients(step)]
        if formula is lamb:
            norm = np.sqrt(sum((grad**2).sum() for grad in grads))
            grads = [grad / max(1, norm) for grad in grads]
        weights = [
            formula(weight, grad, memory, rate(step) * case[3], case[2], step)
            for weight, grad, memory, case in zip(weights, grads, memories, CASES)
        ]
    return weights


def average(memory, slot, value, beta):
    memory[slot] = beta * memory.get(slot, 0.0) + (1 - beta) * value
    return memory[slot]


def lamb(weight, grad, memory, lr, decay, step, betas=(0.9, 0.999), eps=1e-8):
    mean = average(memory, "m", grad, betas[0]) / (1 - betas[0] ** step)
    mean_sq = average(memory, "v", grad**2, betas[1]) / (1 - betas[1] ** step)
    move = mean / (np.sqrt(mean_sq) + eps) + decay * weight
    size, length = np.linalg.norm(weight), np.linalg.norm(move)
    trust = size / length if decay and size and length else 1.0
    return weight - lr * trust * move


def lion(weight, grad, memory, lr, decay, step, betas=(0.9, 0.99)):
    direction = np.sign(betas[0] * memory.get("m", 0.0) + (1 - betas[0]) * grad)
    average(memory, "m", grad, betas[1])
    return weight - lr * (direction + decay * weight)


def adan(weight, grad, memory, lr, decay, step, betas=(0.98, 0.92, 0.99), eps=1e-8):
    change = grad - memory.get("g", grad)
    memory["g"] = grad
    mean = average(memory, "m", grad, betas[0]) / (1 - betas[0] ** step)
    mean_change = average(memory, "v", change, betas[1]) / (1 - betas[1] ** step)
    mean_sq = average(memory, "n", (grad + betas[1] * change) ** 2, betas[2]) / (1 - betas[2] ** step)
    return (weight - lr * (mean + betas[1] * mean_change) / (np.sqrt(mean_sq) + eps)) / (1 + lr * decay)


def test_adamw_is_torchs(mode):
    assert largest_gap(ours("adamw"), by_torch("AdamW")) < 2e-6


@graph_is_slow
def test_adamw_is_torchs_with_other_betas_and_a_large_eps(mode):
    expected = by_torch("AdamW", betas=(0.8, 0.95), eps=1e-2)
    assert largest_gap(ours("adamw", betas=(0.8, 0.95), eps=1e-2), expected) < 2e-6
    assert largest_gap(by_torch("AdamW"), expected) > 1e-3  # both have their say


def test_sgd_is_torchs_with_nesterov(mode):
    expected = by_torch("SGD", momentum=0.9, nesterov=True)
    assert largest_gap(ours("sgd"), expected) < 2e-6
    assert largest_gap(by_torch("SGD", momentum=0.9), expected) > 1e-3


@graph_is_slow
def test_sgd_without_momentum_is_plain_and_without_nesterov_heavy_ball(mode):
    assert largest_gap(ours("sgd", nesterov=False), by_torch("SGD", momentum=0.9)) < 2e-6
    assert largest_gap(ours("sgd", momentum=0.0), by_torch("SGD")) < 2e-6


@pytest.mark.parametrize("formula", [lamb, lion, adan], ids=lambda formula: formula.__name__)
def test_the_others_follow_their_papers(mode, formula):
    assert largest_gap(ours(formula.__name__), by_formula(formula)) < 5e-6


@pytest.mark.parametrize(
    ("formula", "betas"),
    [(lamb, (0.8, 0.95)), (lion, (0.5, 0.8)), (adan, (0.9, 0.8, 0.95))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_betas_reach_the_formula(formula, betas):
    expected = by_formula(functools.partial(formula, betas=betas)) if formula is not lamb else None
    found = ours(formula.__name__, betas=betas)
    assert largest_gap(found, by_formula(formula)) > 1e-4
    if expected is not None:
        assert largest_gap(found, expected) < 5e-6


@graph_is_slow
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_the_state_continues_bit_for_bit(mode, name):
    whole, expected = fresh(name)
    first, halfway = fresh(name)
    for step in range(1, 5):
        update(whole, step)
        update(first, step)
    second, found = fresh(name, [parameter.asnumpy().copy() for parameter in halfway])
    for target, source in zip(second.state, first.state):
        target.set_data(Tensor(source.asnumpy()))
    for step in range(5, 9):
        update(whole, step)
        update(second, step)
    assert all(np.array_equal(one.asnumpy(), other.asnumpy()) for one, other in zip(found, expected))
    assert all(np.array_equal(one.asnumpy(), other.asnumpy()) for one, other in zip(second.state, whole.state))


@pytest.mark.parametrize("name", NAMES)
def test_state_is_kept_by_optimizer_and_slot_and_needs_no_gradient(name):
    optimizer, parameters = fresh(name)
    assert [slot.split(".")[0] for slot in optimizer.optimizer.state] == [name] * len(optimizer.optimizer.slots)
    assert [parameter.name for parameter in parameters] == [case[0] for case in CASES]
    assert not any(buffer.requires_grad for buffer in optimizer.state)
    buffers = (*optimizer.flat.weights, *optimizer.state)
    assert {id(p) for p in optimizer.optimizer.get_parameters()} == {id(p) for p in buffers}


@graph_is_slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_where_nothing_is_to_move(mode, name):
    optimizer, parameters = fresh(name)
    update(optimizer, 1)
    everything = [*parameters, *optimizer.flat.weights, *optimizer.state]
    before = [one.asnumpy().copy() for one in everything]
    update(optimizer, 2, [0 * grad for grad in gradients(2)], moving=False)
    assert all(np.array_equal(old, one.asnumpy()) for old, one in zip(before, everything))


@graph_is_slow
def test_lamb_moves_a_weight_of_zeros_and_survives_a_gradient_of_zeros(mode):
    optimizer, parameters = fresh("lamb")
    update(optimizer, 1)
    assert np.abs(parameters[-1].asnumpy()).max() == pytest.approx(rate(1), rel=1e-3)  # Adam's first step
    optimizer, parameters = fresh("lamb")
    update(optimizer, 1, [np.zeros(case[1], np.float32) for case in CASES])
    assert all(np.isfinite(parameter.asnumpy()).all() for parameter in parameters)
    assert not parameters[-1].asnumpy().any()


@graph_is_slow
def test_lamb_does_not_see_how_large_clipped_gradients_are(mode):
    found = []
    for factor in (8, 64):
        optimizer, parameters = fresh("lamb")
        for step in (1, 2):
            update(optimizer, step, [factor * grad for grad in gradients(step)])
        found.append([parameter.asnumpy() for parameter in parameters])
    assert largest_gap(*found) < 1e-7
    assert largest_gap(found[0], start()) > 1e-3


@pytest.mark.parametrize("beta", [0.9, 0.98, 0.999, 0.99999])
def test_bias_correction_keeps_its_digits(mode, beta):
    beta = single(beta)
    for step in (1, 2, 10, 1000, 1_000_000):
        found = float(bias_correction(beta, Tensor(step, ms.float32)).asnumpy())
        assert found == pytest.approx(1 - beta**step, rel=2e-6)


def test_an_unknown_optimizer_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"opt is 'adamv'; allowed: adamw, lamb, .*\(nearest: 'adamw'\)"):
        create("adamv", [])


def test_a_wrong_number_of_betas_is_said():
    with pytest.raises(UserError, match=r"betas is \(0.9, 0.99\); adan takes 3 values"):
        create("adan", [], betas=(0.9, 0.99))
