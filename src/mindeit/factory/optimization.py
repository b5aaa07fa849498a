"""What training minimises, and the step that does it."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn

from mindeit import optim
from mindeit.config import Config
from mindeit.data import Source
from mindeit.errors import UserError
from mindeit.factory.teacher import load_teacher
from mindeit.kernels import precision
from mindeit.layers.normalised import Normalised
from mindeit.layers.sync_batch_norm import batch_norms, official_norms, over_ranks
from mindeit.objectives import (
    CoSub,
    Criterion,
    Distilled,
    Objective,
    OutsideTeacher,
    Supervised,
    Taught,
    TeacherView,
    binary_cross_entropy,
    cross_entropy,
)
from mindeit.optim.flat import FlatParameters
from mindeit.optim.groups import trained_parameters
from mindeit.runtime import log
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.reduce import several_fit_a_graph
from mindeit.training.average import Average
from mindeit.training.drop_path_draws import DropPathDraws
from mindeit.training.loss_scale import LossScale, StepState
from mindeit.training.step import Clip, Gradients, Stepper, Update
from mindeit.training.variables import TrainVariables
from mindeit.weights.card import ModelCard


def build_objective(
    config: Config,
    student: nn.Cell,
    card: ModelCard,
    class_weights: np.ndarray | None = None,
    outside: OutsideTeacher | None = None,
) -> Objective:
    """``class_weights``: float32 (classes,). ``outside``: the teacher, if it is not part of the graph."""
    loss, level = config.loss, config.run.amp_level
    criterion = _criterion(config, class_weights)
    student = precision.apply(student, level)
    if loss.distillation_type == "none":
        return (CoSub if loss.cosub else Supervised)(student, criterion)
    options = {
        "kind": loss.distillation_type,
        "alpha": loss.distillation_alpha,
        "tau": loss.distillation_tau,
        "reduction": loss.distillation_reduction,
    }
    if outside is not None:
        return Taught(student, criterion, outside.num_classes, **options)
    teacher, seen = load_teacher(config)
    view = TeacherView(
        image_size=seen.image_size,
        mean=seen.mean,
        std=seen.std,
        student_size=card.image_size,
        student_mean=card.mean,
        student_std=card.std,
    )
    return Distilled(student, precision.apply(teacher, level), criterion, view=view, **options)


def class_weights(config: Config, source: Source) -> np.ndarray | None:
    """float32 (classes,); None: all count the same. Balanced ones are as scikit-learn's, of mean 1 over the images."""
    given, classes = config.loss.class_weights, source.num_classes
    if given == ("balanced",):
        counts = np.bincount(source.labels, minlength=classes)
        return (len(source) / (classes * np.maximum(counts, 1))).astype(np.float32)
    if given and len(given) != classes:
        raise UserError(f"class_weights has {len(given)} numbers, the data {classes} classes; allowed: one each")
    return np.array(given, np.float32) if given else None


def _criterion(config: Config, class_weights: np.ndarray | None) -> Criterion:
    threshold = config.loss.bce_target_threshold
    weights = None if class_weights is None else Tensor(class_weights)

    # in a graph functools.partial makes gradients float64
    def of_each_class(logits: Tensor, targets: Tensor) -> Tensor:
        return binary_cross_entropy(logits, targets, threshold, weights)

    def of_the_class(logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits, targets, weights)

    return of_each_class if config.loss.loss == "BCE" else of_the_class


def build_stepper(
    config: Config, objective: Objective, card: ModelCard, cluster: Cluster, *, ema_warmup: bool = False
) -> tuple[Stepper, TrainVariables, DropPathDraws]:
    """The training step, the variables that it changes, and the draws of its drop paths."""
    student = objective.student
    _synchronise(config, student, cluster)
    options, level, parameters = config.optim, config.run.amp_level, list(student.get_parameters())
    statistics = student.untrainable_params()  # asked before freezing adds to them
    trained = trained_parameters(
        student,
        options.weight_decay,
        layer_decay=options.layer_decay,
        attn_only=config.train.attn_only,
        freeze=config.train.freeze,
    )
    flat = FlatParameters(trained, precision.storage(student, level))
    optimizer = optim.create(
        options.opt, flat, betas=options.betas, eps=options.eps, momentum=options.momentum, nesterov=options.nesterov
    )
    average = Average(flat, statistics, options.ema_decay, warmup=ema_warmup) if options.ema else None
    draws = DropPathDraws(student, config.data.batch_size, objective.views, config.run.seed)
    state = StepState(build_loss_scale(config))
    clip = Clip(options.clip_mode, options.clip_value) if options.clip_grad else Clip()
    update = Update(
        flat, optimizer, average, state, clip=clip, ranks=cluster.ranks, check_finite=precision.overflows(level)
    )
    objective.set_train(config.train.train_mode)
    gradients = Gradients(Normalised(objective, card.mean, card.std), flat, draws.table, state)
    stepper = Stepper(gradients, update, options.gradient_accumulation_steps)
    return stepper, TrainVariables(parameters, flat, average, optimizer.state, state), draws


def build_loss_scale(config: Config) -> LossScale:
    if not precision.overflows(config.run.amp_level):
        return LossScale()
    return LossScale(config.optim.loss_scale, config.optim.loss_scale_type == "dynamic")


def _synchronise(config: Config, student: nn.Cell, cluster: Cluster) -> None:
    """Batch norm over all ranks, if the official code or the configuration asks for it."""
    asked = config.train.sync_bn
    norms = official_norms(student) if asked is None else batch_norms(student)
    if asked and not norms:
        raise UserError("sync_bn is True, but the model has no batch norm; leave it out")
    if cluster.ranks == 1 or asked is False or not norms:
        return
    if several_fit_a_graph():
        over_ranks(norms, cluster.rank, cluster.ranks)
    elif asked:
        raise UserError(
            "sync_bn is True, but MindSpore compiles one sum over ranks a graph on GPU; use --mode 1, "
            "which is slower, or leave it out"
        )
    else:
        log.say(
            "note: batch norm takes each rank's own batch: MindSpore compiles one sum over ranks a graph on GPU; "
            "the official code takes all ranks', as --mode 1 does here"
        )
