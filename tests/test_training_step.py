"""The training step against the official code, and against itself in other divisions of the same work."""

from __future__ import annotations

import json

import mindspore as ms
import numpy as np
import pytest
from conftest import graph_is_slow
from mindspore import Parameter, Tensor, nn
from reference import GOLDEN, images, official_state, samples, table
from zoo import fill, shallow

from mindeit import optim
from mindeit.errors import UserError
from mindeit.layers.drop_path import share_draws
from mindeit.models.registry import build
from mindeit.objectives import Distilled, Supervised
from mindeit.objectives.losses import binary_cross_entropy, cross_entropy
from mindeit.optim.flat import FlatParameters
from mindeit.optim.groups import trained_parameters
from mindeit.runtime import device
from mindeit.runtime.graph import compiled, to_device
from mindeit.training.average import Average, kept
from mindeit.training.loop import LateReader
from mindeit.training.loss_scale import GROWTH_INTERVAL, LossScale, StepState
from mindeit.training.step import Clip, Gradients, Report, Stepper, Update
from mindeit.training.variables import TrainVariables
from mindeit.weights.checkpoint import load_strict
from mindeit.weights.names import official_names, rename

MINI, ONE_BLOCK, CLASSES, BATCH = "deit_mini_distilled_patch8_32", "deit_mini_patch8_32_LS", 10, 8
DISTILLED = "deit_tiny_distilled_patch16_224"


def assemble(
    objective,
    name,
    ema_decay,
    *,
    ema_warmup=False,
    decay=0.05,
    batch=4,
    batches=1,
    clip=Clip(),
    check_finite=False,
    scale=LossScale(),
):
    """Everything that trains ``objective.student``, as the scripts put it together."""
    student = objective.student
    parameters, statistics = list(student.get_parameters()), student.untrainable_params()
    flat, state = FlatParameters(trained_parameters(student, decay)), StepState(scale)
    optimizer, average = optim.create(name, flat), Average(flat, statistics, ema_decay, warmup=ema_warmup)
    draws = share_draws(student, batch)
    update = Update(flat, optimizer, average, state, clip=clip, ranks=1, check_finite=check_finite)
    step = Stepper(Gradients(objective, flat, draws, state), update, batches)
    return step, TrainVariables(parameters, flat, average, optimizer.state, state), draws


class Run:
    """A small student with everything a step needs; the same seed gives the same run."""

    def __init__(
        self,
        *,
        batches: int = 1,
        batch: int = BATCH,
        clip: Clip = Clip(),
        name: str = "adamw",
        drop_path: float = 0.2,
        decay: float = 0.05,
        ema_warmup: bool = False,
        check_finite: bool = False,
        scale: LossScale = LossScale(),
    ):
        ms.set_seed(5)
        self.student = shallow(ONE_BLOCK, 1, num_classes=CLASSES, drop_path_rate=drop_path, init_scale=1.0)
        objective = Supervised(self.student, cross_entropy)
        self.step, self.variables, self.draws = assemble(
            objective,
            name,
            0.9,
            ema_warmup=ema_warmup,
            decay=decay,
            batch=batch,
            batches=batches,
            clip=clip,
            check_finite=check_finite,
            scale=scale,
        )
        objective.set_train(True)

    def batch(self, number: int, count: int = BATCH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(number)
        images = rng.standard_normal((count, 3, 32, 32)).astype(np.float32)
        targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, count)]
        return images, targets, rng.random((self.draws.shape[0] if self.draws is not None else 1, count), np.float32)


def slow(parameter):
    return pytest.param(parameter, marks=pytest.mark.slow)


def copied(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in state.items()}


def largest_gap(a: Run, b: Run) -> float:
    first, second = a.variables.model(), b.variables.model()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


class Answers(nn.Cell):
    """A teacher that gives what its table holds."""

    num_classes = 1000

    def __init__(self):
        super().__init__()
        self.table = Parameter(np.zeros((4, 1000), np.float32), name="table", requires_grad=False)

    def construct(self, images: Tensor) -> Tensor:
        return self.table + 0 * images.sum()


# -- equal to the official code -----------------------------------------------------------------------------------


@graph_is_slow  # that a graph takes the same steps is shown on one block, below
def test_five_steps_of_hard_distillation_match_the_official_code(mode):
    """AdamW (lr 1e-3, decay 0.05), label smoothing 0.1, EMA 0.99, batches of 4."""
    want = json.loads((GOLDEN / "run_adamw_hard.json").read_text())
    student, teacher = build(DISTILLED), Answers()
    names = official_names(student)
    state = official_state(DISTILLED)
    load_strict(student, rename(state, {official: own for own, official in names.items()}), "reference")
    objective = Distilled(student, teacher, cross_entropy, kind="hard", alpha=0.5).set_train(True)
    (step, variables, _), losses = assemble(objective, "adamw", 0.99), []
    answers = table("teacher", (5, 4, 1000), 3.0)
    for number, labels in enumerate(want["labels"]):
        teacher.table.set_data(Tensor(answers[number]))
        targets = np.full((4, 1000), 0.1 / 1000, np.float32)
        targets[np.arange(4), labels] += 0.9
        batch = images(4, salt=f"train{number}")
        losses.append(step([(batch, targets, np.zeros((1, 4), np.float32))], 1e-3).read().loss)
    assert losses == pytest.approx(want["losses"], rel=2e-5)
    assert_near(variables.model(), want["params"], names, 1e-6)
    assert_near(variables.ema(), want["ema"], names, 5e-7)


def assert_near(got: dict, want: dict, names: dict, tolerance: float) -> None:
    """Medians of each parameter's sixteen places: single ones of near-zero gradient take a whole step of Adam."""
    official, gaps = {names[key]: value for key, value in got.items()}, {}
    for name, values in want.items():
        gap = np.abs(samples(official[name]) - values)
        if name.endswith("qkv.bias"):  # the gradient of the keys' bias is zero: Adam makes steps of its noise
            third = official[name].size // 3
            places = np.array([i * (official[name].size - 1) // 15 for i in range(16)])
            gap = gap[(places < third) | (places >= 2 * third)]
        gaps[name] = float(np.median(gap))
    print(f"largest median difference {max(gaps.values()):.1e}")
    assert max(gaps.values()) < tolerance, max(gaps, key=gaps.get)


def test_a_graph_takes_the_steps_that_single_operators_take(graph_mode):
    """Of hard distillation with EMA, from two batches each, their gradient clipped. SGD shows gradients as they are; a
    rounding error may decide a step of AdamW, whose formula is compared with PyTorch's in both modes."""
    runs, losses = [], []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        ms.set_seed(5)
        teacher = Answers()
        teacher.table.set_data(Tensor(table("teacher", (4, 1000), 3.0)))
        student = shallow(MINI)
        objective = Distilled(student, teacher, cross_entropy, kind="hard", alpha=0.5).set_train(True)
        step, variables, _ = assemble(objective, "sgd", 0.99, batches=2, clip=Clip("norm", 0.5))
        labels = np.eye(1000, dtype=np.float32)[[1, 10, 100, 999]]
        batches = [(images(4, 32, salt=f"train{number}"), labels, np.zeros((1, 4), np.float32)) for number in range(2)]
        losses.append([step(batches, 0.1).read().loss for _ in range(4)])
        runs.append({**variables.model(), **{f"ema/{name}": value for name, value in variables.ema().items()}})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0][-1] < losses[0][0]
    for name, value in runs[0].items():
        np.testing.assert_allclose(value, runs[1][name], atol=1e-6, err_msg=name)


def yes_or_no(logits: Tensor, targets: Tensor) -> Tensor:
    return binary_cross_entropy(logits, targets, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("pynative", [False, True])
def test_five_steps_of_lamb_match_the_official_code(pynative, graph_mode):
    """DeiT III: LAMB (lr 4e-3, decay 0.05), binary cross entropy of mixed targets, EMA 0.99, batches of 4."""
    want = json.loads((GOLDEN / "run_lamb_bce.json").read_text())
    ms.set_context(mode=ms.PYNATIVE_MODE if pynative else ms.GRAPH_MODE)
    student = fill(build("deit_tiny_patch16_LS"))
    objective = Supervised(student, yes_or_no).set_train(True)
    (step, variables, _), losses = assemble(objective, "lamb", 0.99), []
    for number, labels in enumerate(want["labels"]):
        batch, targets = images(4, salt=f"train{number}"), np.eye(1000, dtype=np.float32)[labels]
        batch, targets = (0.7 * both + 0.3 * both[::-1] for both in (batch, targets))  # mixup with the mirrored batch
        batch = batch.astype(np.float32), targets.astype(np.float32), np.zeros((1, 4), np.float32)
        losses.append(step([batch], 4e-3).read().loss)
    print([abs(a / b - 1) for a, b in zip(losses, want["losses"])])
    assert losses == pytest.approx(want["losses"], rel=2e-5)
    assert_near(variables.model(), want["params"], official_names(student), 1e-6)
    assert_near(variables.ema(), want["ema"], official_names(student), 5e-7)


# -- the same work, divided otherwise -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clip", [Clip("norm", 0.5), slow(Clip()), slow(Clip("value", 0.01))], ids=lambda clip: clip.mode
)
@graph_is_slow  # that a graph accumulates alike is shown above
def test_accumulated_batches_equal_the_large_batch(clip, mode):
    whole, parts = Run(batch=4 * BATCH, clip=clip, name="sgd"), Run(batches=4, clip=clip, name="sgd")
    for number in range(1, 4):
        images, targets, draws = whole.batch(number, 4 * BATCH)
        one = whole.step([(images, targets, draws)], 0.1).read()
        cuts = [slice(start, start + BATCH) for start in range(0, 4 * BATCH, BATCH)]
        four = parts.step([(images[cut], targets[cut], draws[:, cut]) for cut in cuts], 0.1).read()
        assert four.loss == pytest.approx(one.loss, rel=1e-6)
    assert largest_gap(whole, parts) < 1e-6


def test_clipping_bounds_the_gradient():
    free, bound = Run(name="sgd", decay=0), Run(name="sgd", decay=0, clip=Clip("norm", 1e-3))
    before = copied(free.variables.model())
    free.step([free.batch(0)], 1.0).read()
    bound.step([bound.batch(0)], 1.0).read()
    moved = [
        sum(np.square(run.variables.model()[k] - v).sum() for k, v in before.items()) ** 0.5 for run in (free, bound)
    ]
    assert moved[1] < 0.01 < moved[0]


@graph_is_slow
def test_the_average_follows_with_its_decay(mode):
    run = Run()
    before, averaged = copied(run.variables.model()), copied(run.variables.ema())
    run.step([run.batch(0)], 1e-2).read()
    after, now = copied(run.variables.model()), copied(run.variables.ema())
    assert not np.array_equal(before["head.weight"], after["head.weight"])
    for name in before:
        np.testing.assert_allclose(now[name], 0.9 * averaged[name] + 0.1 * after[name], atol=1e-7)
    parameters = list(run.variables.parameters)
    with run.variables.averaged():
        assert all(np.array_equal(one.asnumpy(), now[one.name]) for one in parameters)
    assert all(np.array_equal(one.asnumpy(), after[one.name]) for one in parameters)


@graph_is_slow
def test_an_average_that_warms_up_follows_by_the_formula_and_goes_on_with_it(mode):
    run, resumed = Run(ema_warmup=True), Run(ema_warmup=True)
    want = run.variables.ema()["head.weight"].copy()
    for update in range(3):
        run.step([run.batch(update)], 1e-2).read()
        decay = min(0.9, (1 + update) / (10 + update))
        want = decay * want + (1 - decay) * run.variables.model()["head.weight"]
        np.testing.assert_allclose(run.variables.ema()["head.weight"], want, atol=1e-7)
    parts = (run.variables.model(), run.variables.ema(), run.variables.optimizer_state())
    resumed.variables.restore(*(copied(part) for part in parts), "memory", updates=3, scale=LossScale())
    for one in (run, resumed):
        one.step([one.batch(3)], 1e-2).read()
    assert np.array_equal(run.variables.ema()["head.weight"], resumed.variables.ema()["head.weight"])


@pytest.mark.parametrize("decay, updates", [(0.9, 5), (0.9, 200), (0.99996, 2656), (0.0, 3)])
@pytest.mark.parametrize("warmup", [False, True])
def test_what_an_average_keeps_of_the_initial_weights_is_the_product_of_its_decays(decay, updates, warmup):
    shares = [min(decay, (1 + n) / (10 + n)) if warmup else decay for n in range(updates)]
    assert kept(decay, updates, warmup=warmup) == pytest.approx(np.prod(shares))


# -- exact continuation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", slow("lamb"), slow("sgd"), slow("adan"), slow("lion")])
@graph_is_slow  # whole runs that are stopped continue as graphs (test_train_resume.py)
def test_a_restored_run_continues_bit_for_bit(name, mode):
    straight, second = Run(name=name), Run(name=name)
    for number in range(1, 3):
        straight.step([straight.batch(number)], 1e-2).read()
    parts = (straight.variables.model(), straight.variables.ema(), straight.variables.optimizer_state())
    state, ema, moments = (copied(part) for part in parts)
    for number in range(3, 5):
        straight.step([straight.batch(number)], 1e-2).read()
    second.variables.restore(state, ema, moments, "memory", updates=2, scale=LossScale())
    for number in range(3, 5):
        second.step([second.batch(number)], 1e-2).read()
    for a, b in zip(straight.variables.all, second.variables.all):
        assert np.array_equal(a.asnumpy(), b.asnumpy()), a.name


def test_a_state_of_another_model_is_refused_whole():
    run = Run()
    before = copied(run.variables.model())
    with pytest.raises(UserError, match=r"^there: the weights do not fit the model; 1 missing: head.bias"):
        other = {name: value + 1 for name, value in before.items() if name != "head.bias"}
        run.variables.restore(other, None, run.variables.optimizer_state(), "there", updates=0, scale=LossScale())
    assert all(np.array_equal(before[name], value) for name, value in run.variables.model().items())


# -- half precision's scale ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", slow("lamb"), slow("sgd"), slow("adan"), slow("lion")])
def test_an_overflow_leaves_everything_but_the_scale_as_it_was(name, mode):
    run = Run(name=name, check_finite=True, scale=LossScale(1024.0, dynamic=True))
    run.step([run.batch(1)], 1e-2)
    before = {one.name: one.asnumpy().copy() for one in run.variables.all}
    images, targets, draws = run.batch(0)
    images[0, 0, 0, 0] = np.inf
    report = run.step([(images, targets, draws)], 1e-2).read()
    assert (report.finite, report.updates, report.good_steps, report.scale) == (0, 1, 0, 512)
    for one in run.variables.all:
        if one.name != "step_state":
            assert np.array_equal(before[one.name], one.asnumpy()), one.name
    report = run.step([run.batch(2)], 1e-2).read()
    assert (report.finite, report.updates, report.good_steps, report.scale) == (1, 2, 1, 512)
    assert np.isfinite(report.loss)
    assert not np.array_equal(before["weights.0"], run.variables.flat.weights[0].asnumpy())


@graph_is_slow
def test_the_loss_scale_divides_out(mode):
    plain, scaled = Run(check_finite=True), Run(check_finite=True, scale=LossScale(4096.0))
    losses = [run.step([run.batch(0)], 1e-3).read().loss for run in (plain, scaled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert largest_gap(plain, scaled) < 1e-6


def test_the_scale_halves_on_overflow_and_doubles_after_long_luck(mode):
    good, bad = Tensor(True), Tensor(False)
    state = StepState(LossScale(1024.0, dynamic=True))
    assert state(bad).asnumpy().tolist() == [0, 0, 512]
    state.set(7, LossScale(512.0, good_steps=GROWTH_INTERVAL - 2))
    assert state(good).asnumpy().tolist() == [8, GROWTH_INTERVAL - 1, 512]
    assert state(good).asnumpy().tolist() == [9, 0, 1024]
    state.set(7, LossScale(2.0**24, good_steps=GROWTH_INTERVAL - 1))
    assert state(good).asnumpy().tolist() == [8, 0, 2**24]
    fixed = StepState(LossScale(8.0))
    assert fixed(bad).asnumpy().tolist() == [0, 0, 8]
    assert fixed(good).asnumpy().tolist() == [1, 0, 8]


def test_a_scale_that_never_fits_ends_the_run_with_a_line():
    LossScale(2.0**-14).check()
    with pytest.raises(UserError, match="gradients overflow at every loss scale"):
        LossScale(2.0**-15).check()


# -- stochastic depth from a table --------------------------------------------------------------------------------


def test_drop_paths_read_their_row_of_the_table(mode):
    student = build(MINI, num_classes=CLASSES, drop_path_rate=0.5).set_train(True)
    draws = share_draws(student, 2)
    assert draws.shape == (2, 2)  # two in each block but the first, whose rate is 0
    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    kept = np.full((2, 2), 0.99, np.float32)
    draws(Tensor(kept))
    full = student(images)[0].asnumpy()
    kept[1, 1] = 0.0
    draws(Tensor(kept))
    dropped = student(images)[0].asnumpy()
    assert np.array_equal(full[0], dropped[0]) and not np.allclose(full[1], dropped[1])
    assert share_draws(build(MINI, num_classes=CLASSES), 2) is None


# -- graphs that are only started ---------------------------------------------------------------------------------


def test_graphs_started_without_waiting_compute_the_same_bits(graph_mode, monkeypatch):
    """Where there is a device to keep busy, steps are graphs within PyNative mode."""
    monkeypatch.setitem(device._graphs, "wanted", True)
    runs, logits = [], []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        run = Run(check_finite=True, scale=LossScale(1024.0, dynamic=True))
        steps = [run.step([run.batch(number)], 1e-2) for number in range(3)]
        runs.append((run, [step.read() for step in steps]))
        logits.append(compiled(run.student.set_train(False))(to_device(run.batch(0)[0])).asnumpy().copy())
    assert runs[0][1] == runs[1][1]
    for a, b in zip(runs[0][0].variables.all, runs[1][0].variables.all):
        assert np.array_equal(a.asnumpy(), b.asnumpy()), a.name
    assert np.array_equal(*logits)


def test_reports_are_read_one_step_late_and_in_order():
    class Step:
        def __init__(self, number):
            self.number = number

        def read(self):
            events.append(f"read {self.number}")
            return Report(self.number, 0, 1, self.number, 0, 1)

    events: list[str] = []
    reader = LateReader(lambda report, lr: events.append(f"noted {report.updates} at {lr}"))
    assert reader.read() is None
    for number in (1, 2, 3):
        events.append(f"started {number}")
        reader.started(Step(number), number / 10)
    assert reader.read() == reader.read() == reader.last
    assert events == [
        "started 1",
        "started 2",
        "read 1",
        "noted 1 at 0.1",
        "started 3",
        "read 2",
        "noted 2 at 0.2",
        "read 3",
        "noted 3 at 0.3",
    ]
