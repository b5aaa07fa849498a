"""What each objective computes, and whom it leaves alone."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
import pytest
from conftest import graph_is_slow
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal
from PIL import Image
from reference import GOLDEN

from mindeit.errors import UserError
from mindeit.kernels import precision
from mindeit.layers.drop_path import share_draws
from mindeit.models.deit import DeiT
from mindeit.objectives import CoSub, Distilled, Supervised, TeacherView
from mindeit.objectives.losses import binary_cross_entropy, cross_entropy, hard_distillation, soft_distillation
from mindeit.objectives.teacher import resize_matrix
from mindeit.runtime import device

BATCH, SIZE, CLASSES = 4, 32, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAME = {"student_mean": MEAN, "student_std": STD, "mean": MEAN, "std": STD}


def images(size: int = SIZE) -> Tensor:
    return Tensor(np.random.default_rng(1).standard_normal((BATCH, 3, size, size)).astype(np.float32))


def targets() -> Tensor:
    hot = np.eye(CLASSES, dtype=np.float32)[[0, 3, 1, 4]]
    return Tensor((0.7 * hot + 0.3 * hot[::-1]).astype(np.float32))


def student(distilled: bool = True, drop_path_rate: float = 0.0, depth: int = 1) -> DeiT:
    """The first block never drops its paths, so stochastic depth takes two."""
    device.seed(5)
    model = DeiT(
        embed_dim=16,
        depth=depth,
        num_heads=2,
        patch_size=16,
        distilled=distilled,
        num_classes=CLASSES,
        image_size=SIZE,
        drop_path_rate=drop_path_rate,
        drop_rate=0.0,
    )
    for parameter in model.get_parameters():
        if parameter.name.startswith("head") and parameter.ndim == 2:
            parameter.set_data(parameter * 30)  # scores far from even
    return model.set_train(True)


class ConvNet(nn.Cell):
    """A teacher whose batch norm would show whether it was ever in training."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.num_classes, self.distilled = num_classes, False
        self.conv = nn.Conv2d(3, 8, 3, weight_init=Normal(0.3))
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Dense(8, num_classes, weight_init=Normal(1.0))
        self.gain = Parameter(Tensor(2.0, ms.float32), name="gain")

    def construct(self, x):
        return self.head(ops.mean(ops.relu(self.bn(self.conv(x))), (2, 3))) * self.gain


def values(cell: nn.Cell) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in cell.get_parameters()}


def gradients(objective: nn.Cell, *inputs: Tensor) -> tuple[float, dict[str, np.ndarray]]:
    weights = ms.ParameterTuple(objective.student.trainable_params())
    loss, grads = ms.value_and_grad(objective, None, weights)(*inputs)
    assert loss.dtype == ms.float32
    assert loss.shape == ()
    return float(loss), {weight.name: grad.asnumpy() for weight, grad in zip(weights, grads)}


class Around(nn.Cell):
    """Stands for a training step: a cell around the objective."""

    def __init__(self, objective: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.objective = objective


class Fixed(nn.Cell):
    """A model whose outputs are the rows it was given, whatever it sees."""

    def __init__(self, *outputs: np.ndarray, distilled: bool = False) -> None:
        super().__init__()
        self.distilled, self.num_classes, self.image_size = distilled, outputs[0].shape[1], SIZE
        self.outputs = tuple(Tensor(output) for output in outputs)

    def construct(self, x):
        return self.outputs if self.distilled else self.outputs[0]


# -- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "alpha", "value"),
    [
        ("soft", 0.5, 1.8990183854368081),
        ("soft", 0.3, 2.5658367060448564),
        ("hard", 0.5, 3.1223417664373003),
        ("hard", 0.3, 3.299830734645152),
    ],
)
def test_distilled_gives_the_official_numbers(kind, alpha, value, mode):
    arrays = np.load(GOLDEN / "losses.npz")
    pupil = Fixed(arrays["logits"], arrays["logits_kd"], distilled=True)
    objective = Distilled(pupil, Fixed(arrays["teacher"]), cross_entropy, kind=kind, alpha=alpha)
    loss = objective(Tensor(np.zeros((6, 3, SIZE, SIZE), np.float32)), Tensor(arrays["soft_targets"]))
    assert float(loss) == pytest.approx(value, rel=2e-6)


@pytest.mark.parametrize(
    "options",
    [{"kind": "hard"}, {"kind": "soft", "tau": 3.0, "reduction": "batchmean", "alpha": 0.9}],
    ids=["hard", "soft"],
)
@graph_is_slow
def test_the_class_head_learns_the_targets_and_the_other_head_the_teacher(options, mode):
    pupil, teacher = student(), ConvNet()
    wanted = teacher.set_train(False)(images())
    logits, own = pupil(images())
    objective = Distilled(pupil, teacher, cross_entropy, **options).set_train(True)
    if options["kind"] == "soft":
        distillation = soft_distillation(own, wanted, 3.0, "batchmean")
    else:
        distillation = hard_distillation(own, wanted)
    alpha = options.get("alpha", 0.5)
    value = (1 - alpha) * float(cross_entropy(logits, targets())) + alpha * float(distillation)
    assert float(objective(images(), targets())) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_student_of_one_head_follows_targets_and_teacher_with_it(kind, mode):
    """The official numbers of a student whose heads say the same."""
    arrays = np.load(GOLDEN / "losses.npz")
    nothing, soft_targets = Tensor(np.zeros((6, 3, SIZE, SIZE), np.float32)), Tensor(arrays["soft_targets"])
    losses = []
    for pupil in (Fixed(arrays["logits"]), Fixed(arrays["logits"], arrays["logits"], distilled=True)):
        objective = Distilled(pupil, Fixed(arrays["teacher"]), cross_entropy, kind=kind, alpha=0.3).set_train(True)
        losses.append(float(objective(nothing, soft_targets)))
    assert losses[0] == losses[1]


def test_set_train_switches_a_student_of_one_head_as_it_is():
    objective = Distilled(student(distilled=False), ConvNet(), cross_entropy)
    for mode in (True, False):
        assert objective.set_train(mode).student.training == mode


def test_without_distillation_the_class_head_alone_learns(mode):
    pupil = student()
    objective = Supervised(pupil, cross_entropy).set_train(True)
    loss, grads = gradients(objective, images(), targets())
    assert loss == pytest.approx(float(cross_entropy(pupil(images())[0], targets())), rel=1e-5)
    assert np.abs(grads["head.weight"]).max() > 0
    assert np.abs(grads["head_dist.weight"]).max() == 0


@graph_is_slow
def test_without_distillation_evaluation_mode_trains_the_mean_of_the_heads(mode):
    objective = Supervised(student(), cross_entropy).set_train(False)
    _, grads = gradients(objective, images(), targets())
    assert np.abs(grads["head_dist.bias"] - grads["head.bias"]).max() < 1e-7
    assert np.abs(grads["head_dist.bias"]).max() > 0


@graph_is_slow
def test_a_criterion_may_be_a_partial_function(mode):
    pupil = student(distilled=False)
    criterion = functools.partial(binary_cross_entropy, threshold=0.5)
    loss = Supervised(pupil, criterion).set_train(True)(images(), targets())
    hard = Tensor((targets().asnumpy() > 0.5).astype(np.float32))
    assert float(loss) == pytest.approx(float(binary_cross_entropy(pupil(images()), hard)), rel=1e-5)


# -- the student --------------------------------------------------------------------------------------------------


def test_names_of_the_student_stay_as_in_checkpoints_and_the_teachers_are_no_part_of_them():
    names = set(values(student()))
    for make in (lambda: Supervised(student(), cross_entropy), lambda: Distilled(student(), ConvNet(), cross_entropy)):
        objective = make()
        assert set(values(objective.student)) == names
        assert {parameter.name for parameter in objective.trainable_params()} == names
    assert set(values(objective)) - names == {f"teacher.{name}" for name in values(ConvNet())}


@graph_is_slow
def test_distillation_goes_on_where_the_student_trains_in_evaluation_mode(mode):
    """Fine-tuning without stochastic depth: set_train(False), and yet both heads come out."""
    calm, lively = student(depth=2), student(drop_path_rate=0.9, depth=2)
    losses = [
        float(Distilled(pupil, ConvNet(), cross_entropy, alpha=0.0).set_train(False)(images(), targets()))
        for pupil in (calm, lively)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] == pytest.approx(float(cross_entropy(calm(images())[0], targets())), rel=1e-5)


def test_set_train_of_the_objective_reaches_the_students_blocks():
    objective = Distilled(student(drop_path_rate=0.5, depth=2), ConvNet(), cross_entropy)
    around = Around(objective)
    for switch in (True, False, True):
        around.set_train(switch)
        assert objective.student.blocks[1].training is switch
        assert objective.student.training is True


def test_a_student_left_in_evaluation_mode_is_told():
    objective = Distilled(student(), ConvNet(), cross_entropy)
    objective.student.set_train(False)
    with pytest.raises(ValueError, match="the student is in evaluation mode: call set_train on the objective again"):
        objective(images(), targets())


# -- the teacher --------------------------------------------------------------------------------------------------


def test_the_teacher_stays_as_it_is(mode):
    teacher = ConvNet()
    teacher.set_train(True)
    objective = Distilled(student(), teacher, cross_entropy, kind="soft")
    Around(objective).set_train(True)
    before = values(teacher)
    loss, grads = gradients(objective, images(), targets())
    assert np.isfinite(loss)
    assert not teacher.training and not teacher.bn.training
    assert all(np.array_equal(before[name], after) for name, after in values(teacher).items())
    assert np.abs(grads["head_dist.weight"]).max() > 0


def test_no_gradient_reaches_the_teacher_even_when_asked_for(mode):
    teacher = ConvNet()
    objective = Distilled(student(), teacher, cross_entropy, kind="soft", tau=3.0).set_train(True)
    assert not any(parameter.requires_grad for parameter in teacher.get_parameters())
    teacher.gain.requires_grad = True
    weights = ms.ParameterTuple([teacher.gain, objective.student.head_dist.weight])
    of_teacher, of_student = ms.grad(objective, None, weights)(images(), targets())
    assert float(of_teacher) == 0
    assert np.abs(of_student.asnumpy()).max() > 0


def pillow(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [20, 32, 48])
def test_the_teacher_sees_the_images_at_its_resolution_and_normalisation(size, mode):
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    view = TeacherView(image_size=size, mean=mean, std=std, student_size=SIZE, student_mean=MEAN, student_std=STD)
    pixels = np.random.default_rng(2).random((BATCH, 3, SIZE, SIZE)).astype(np.float32)

    def normalised(images, mean, std):
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (mean, std))
        return ((images - mean) / std).astype(np.float32)

    wanted = normalised(np.stack([[pillow(plane, size) for plane in image] for image in pixels]), mean, std)
    seen = view(Tensor(normalised(pixels, MEAN, STD)))
    assert seen.shape == (BATCH, 3, size, size)
    assert np.abs(seen.asnumpy() - wanted).max() < 1e-5


def test_resizing_keeps_flat_images_flat():
    for to in (20, 48):
        assert np.abs(resize_matrix(SIZE, to).sum(1) - 1).max() < 1e-6


def test_a_view_that_changes_nothing_is_the_identity():
    view = TeacherView(image_size=SIZE, student_size=SIZE, **SAME)
    batch = images()
    assert view.construct(batch) is batch


@graph_is_slow
def test_distilled_shows_its_teacher_the_view(mode):
    teacher = ConvNet()
    view = TeacherView(
        image_size=48, student_size=SIZE, student_mean=MEAN, student_std=STD, mean=(0, 0, 0), std=(1, 1, 1)
    )
    pupil = student()
    wanted = teacher.set_train(False)(view(images()))
    plain = teacher(images())
    own = pupil(images())[1]
    objective = Distilled(pupil, teacher, cross_entropy, kind="soft", alpha=1.0, view=view).set_train(True)
    loss = float(objective(images(), targets()))
    assert loss == pytest.approx(float(soft_distillation(own, wanted, 1.0)), rel=1e-4)
    assert loss != pytest.approx(float(soft_distillation(own, plain, 1.0)), rel=1e-2)


# -- CoSub --------------------------------------------------------------------------------------------------------


class Halves(nn.Cell):
    """Logits (2B, C) that differ between the two passes of a batch, as stochastic depth makes them."""

    def __init__(self, logits: np.ndarray) -> None:
        super().__init__()
        self.logits = Parameter(Tensor(logits), name="logits")
        self.distilled = False

    def construct(self, x):
        return self.logits * ops.mean(x, (1, 2, 3)).expand_dims(1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_cosub_teaches_both_halves_by_targets_and_by_each_other(mode):
    logits = np.random.default_rng(4).standard_normal((2 * BATCH, CLASSES)).astype(np.float32) * 3
    pupil, ones = Halves(logits), Tensor(np.ones((BATCH, 3, 2, 2), np.float32))
    loss, grads = gradients(CoSub(pupil).set_train(True), ones, targets())

    def entropy(x, t):
        return (np.logaddexp(0, x) - x * t).mean()

    a, b = np.split(logits.astype(np.float64), 2)
    t = targets().asnumpy().astype(np.float64)
    value = (entropy(a, t) + entropy(b, t) + entropy(a, sigmoid(b)) + entropy(b, sigmoid(a))) / 4
    slope = np.concatenate([(2 * sigmoid(x) - t - sigmoid(y)) / 4 / x.size for x, y in ((a, b), (b, a))])
    assert loss == pytest.approx(value, rel=1e-6)
    assert np.abs(grads["logits"] - slope).max() < 1e-7


@graph_is_slow
def test_cosub_draws_other_paths_for_each_half(mode):
    """Where the two passes agree, the loss is that of one; stochastic depth sets them apart."""
    calm, lively = (CoSub(student(False, rate, 2)).set_train(True) for rate in (0.0, 0.5))
    logits = calm.student(images())
    alone = binary_cross_entropy(logits, targets()) + binary_cross_entropy(logits, ops.sigmoid(logits))
    assert float(calm(images(), targets())) == pytest.approx(float(alone) / 2, rel=1e-5)
    twice = lively.student(ops.concat((images(), images()))).asnumpy()
    assert np.abs(twice[:BATCH] - twice[BATCH:]).max() > 1e-3
    assert len({float(lively(images(), targets())) for _ in range(4)}) > 1


def test_cosub_takes_its_paths_from_a_shared_table(mode):
    """The table has a column per image the student sees: ``views`` times the batch."""
    objective = CoSub(student(False, 0.5, 2)).set_train(True)
    draws = share_draws(objective.student, objective.views * BATCH)
    losses = []
    for first, second in ((0.9, 0.9), (0.9, 0.1), (0.1, 0.1), (0.9, 0.1)):
        columns = np.repeat(np.float32([first, second]), BATCH)
        draws(Tensor(np.tile(columns, (draws.shape[0], 1))))
        losses.append(float(objective(images(), targets())))
    assert losses[1] == pytest.approx(losses[3], rel=1e-6)  # a sum over threads may differ in its last bit
    assert len({round(loss, 4) for loss in losses}) == 3


# -- half precision -----------------------------------------------------------------------------------------------


def half_precision_cases() -> list:
    """By O3 the loss with the most arithmetic: it differs from O2 in the norms' weights alone. A run at O2 learns from
    labels alone in test_train.py."""
    quick = {("hard", "O2"), ("soft", "O3")}
    cases = [(kind, level) for kind in ("supervised", "cosub", "soft", "hard") for level in ("O2", "O3")]
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(("kind", "level"), half_precision_cases())
def test_losses_are_float32_and_near_where_the_models_compute_in_half(kind, level, graph_mode):
    """Halves in a graph, as they are meant to run; the truth operator by operator, which costs no compiling."""
    losses = {}
    for each, mode in ((level, ms.GRAPH_MODE), ("O0", ms.PYNATIVE_MODE)):
        ms.set_context(mode=mode)
        pupil = precision.apply(student(distilled=kind in ("soft", "hard")), each)
        if kind == "supervised":
            objective = Supervised(pupil, cross_entropy)
        elif kind == "cosub":
            objective = CoSub(pupil)
        else:
            objective = Distilled(pupil, precision.apply(ConvNet(), each), cross_entropy, kind=kind)
        losses[each], grads = gradients(objective.set_train(True), images(), targets())
        assert all(np.isfinite(grad).all() for grad in grads.values())
    assert losses[level] != pytest.approx(losses["O0"], rel=3e-6)  # a graph in float32 is nearer
    assert losses[level] == pytest.approx(losses["O0"], rel=2e-2)


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sof"}, "distillation_type is 'sof'; allowed: soft, hard (nearest: 'soft')"),
        ({"kind": "none"}, "distillation_type is 'none'; allowed: soft, hard"),
        (
            {"reduction": "batchmeans"},
            "distillation_reduction is 'batchmeans'; allowed: official, batchmean (nearest: 'batchmean')",
        ),
        ({"alpha": 1.5}, "distillation_alpha is 1.5; allowed: 0 to 1"),
        ({"tau": 0.0}, "distillation_tau is 0.0; allowed: above 0"),
    ],
)
def test_an_impossible_option_is_one_line(options, message):
    with pytest.raises(UserError) as error:
        Distilled(student(), ConvNet(), cross_entropy, **options)
    assert str(error.value) == message


def test_a_teacher_of_other_classes_is_one_line():
    with pytest.raises(UserError) as error:
        Distilled(student(), ConvNet(7), cross_entropy)
    assert str(error.value) == (
        "the teacher tells 7 classes apart, the student 5; "
        "distillation needs a teacher trained on the student's classes"
    )


def test_cosub_of_a_distilled_student_is_one_line():
    with pytest.raises(UserError) as error:
        CoSub(student())
    assert str(error.value) == "CoSub trains models of one head; the student has a distillation head"
