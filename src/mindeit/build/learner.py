"""Who learns and how: the student, its objective, and the step that changes it."""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Optional

from mindeit.build.evaluation import evaluation_options
from mindeit.build.teacher import load_teacher, weights_of_teacher
from mindeit.errors import UserError

if TYPE_CHECKING:
    from mindspore import Tensor, nn

    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config
    from mindeit.data import Source
    from mindeit.runtime.cluster import Cluster
    from mindeit.training.live import Live
    from mindeit.training.scaling import LossScale
    from mindeit.training.step import Stepper


def student(config: Config, source: Source) -> tuple[nn.Cell, ModelCard, list[str]]:
    """Fresh, or from a file, with what is not as the file has it: a head of other classes, a table of another grid.

    The images are those of ``image_resize``, else of the named model, else of the file.
    """
    from mindeit.checkpoint import card_for
    from mindeit.convert.load import load_to_train
    from mindeit.layers.recompute import recompute_blocks
    from mindeit.models.registry import build, spec

    model, data = config.model, config.data
    rates = {"drop_path_rate": model.drop_path_rate, "drop_rate": model.drop_rate}
    classes, names = source.num_classes, source.class_names if source.named else None
    path, changes = starting_file(config), []
    if path:
        student, card, changes = load_to_train(
            path, model=model.model, num_classes=classes, class_names=names, image_size=data.image_resize,
            use_ema=model.use_ema, check=not model.no_check, **rates
        )
    elif model.model:
        student = build(model.model, num_classes=classes, image_size=data.image_resize, **rates)
        card = card_for(spec(model.model), classes, data.image_resize)
    else:
        raise UserError("no model: give --config FILE, --model NAME or --ckpt_path FILE")
    if config.train.recompute:
        recompute_blocks(student)
    own = {key: value for key, value in evaluation_options(config).items() if value is not None}
    return student, replace(card, class_names=names or card.class_names, **own), changes


def starting_file(config: Config) -> Optional[str]:
    """The weights that the student starts from; None: fresh ones."""
    model = config.model
    if not model.pretrained:
        return model.ckpt_path
    from mindeit.convert.pretrained import fetch_pretrained

    return str(fetch_pretrained(model.model, config.data.image_resize))


def teacher_file(config: Config) -> Optional[str]:
    """The teacher's weights, where there is one."""
    return None if config.loss.distillation_type == "none" else weights_of_teacher(config)


def objective(config: Config, student: nn.Cell, card: ModelCard) -> nn.Cell:
    from mindeit import losses, objectives
    from mindeit.runtime import precision

    loss, threshold = config.loss, config.loss.bce_target_threshold

    def yes_or_no(logits: Tensor, targets: Tensor) -> Tensor:  # in a graph functools.partial makes gradients float64
        return losses.binary_cross_entropy(logits, targets, threshold)

    criterion = yes_or_no if loss.loss == "BCE" else losses.cross_entropy
    level = config.run.amp_level
    if loss.distillation_type == "none":
        kind = objectives.CoSub if loss.cosub else objectives.Supervised
        return kind(precision.apply(student, level), criterion)
    teacher, seen = load_teacher(config)
    view = objectives.TeacherView(
        image_size=seen.image_size, mean=seen.mean, std=seen.std,
        student_size=card.image_size, student_mean=card.mean, student_std=card.std,
    )
    return objectives.Distilled(
        precision.apply(student, level),
        precision.apply(teacher, level),
        criterion,
        kind=loss.distillation_type,
        alpha=loss.distillation_alpha,
        tau=loss.distillation_tau,
        reduction=loss.distillation_reduction,
        view=view,
    )


def stepper(
    config: Config, student: nn.Cell, objective: nn.Cell, cluster: Cluster
) -> tuple[Stepper, Live, int]:
    """The step, what it changes, and how many draws an image's drop paths take."""
    from mindeit import optim
    from mindeit.layers.drop_path import share_draws
    from mindeit.optim.flat import FlatParameters
    from mindeit.optim.groups import trained_parameters
    from mindeit.runtime import precision
    from mindeit.training.live import Live
    from mindeit.training.scaling import StepState
    from mindeit.training.step import Average, Clip, Gradients, Stepper, Update

    synchronise(config, student, cluster)
    options, level, parameters = config.optim, config.run.amp_level, list(student.get_parameters())
    statistics = student.untrainable_params()  # asked before freezing adds to them
    trained = trained_parameters(
        student, options.weight_decay, layer_decay=options.layer_decay,
        attn_only=config.train.attn_only, freeze=config.train.freeze,
    )
    flat = FlatParameters(trained, precision.storage(student, level))
    optimizer = optim.create(options.opt, flat, betas=options.betas, eps=options.eps, momentum=options.momentum,
                             nesterov=options.nesterov)
    average = Average(flat, statistics, options.ema_decay) if options.ema else None
    drop_paths = share_draws(student, config.data.batch_size * getattr(objective, "views", 1))
    state, scaled = StepState(loss_scale(config)), level in ("O2", "O3")
    clip = Clip(options.clip_mode, options.clip_value) if options.clip_grad else Clip()
    update = Update(flat, optimizer, average, state, clip=clip, ranks=cluster.ranks, check_finite=scaled)
    objective.set_train(config.train.train_mode)
    stepper = Stepper(Gradients(objective, flat, drop_paths, state), update, options.gradient_accumulation_steps)
    live = Live(parameters, flat, average, optimizer.state, state)
    return stepper, live, 0 if drop_paths is None else drop_paths.shape[0]


def synchronise(config: Config, student: nn.Cell, cluster: Cluster) -> None:
    """Batch norm's statistics over all ranks, where the official code or the configuration asks for them."""
    from mindeit.layers.sync_batch_norm import batch_norms, official_norms, over_ranks
    from mindeit.runtime import log
    from mindeit.runtime.reduce import several_fit_a_graph

    asked = config.train.sync_bn
    norms = official_norms(student) if asked is None else batch_norms(student)
    if asked and not norms:
        raise UserError("sync_bn is True, but the model has no batch norm; leave it out")
    if cluster.ranks == 1 or asked is False or not norms:
        return
    if several_fit_a_graph():
        over_ranks(norms, cluster.rank, cluster.ranks)
    elif asked:
        raise UserError("sync_bn is True, but MindSpore compiles one sum over ranks a graph on GPU; use --mode 1, "
                        "which is slower, or leave it out")
    else:
        log.say("note: batch norm takes each rank's own batch: MindSpore compiles one sum over ranks a graph on GPU; "
                "the official code takes all ranks', as --mode 1 does here")


def loss_scale(config: Config) -> LossScale:
    """Float16 alone needs one."""
    from mindeit.training.scaling import LossScale

    if config.run.amp_level not in ("O2", "O3"):
        return LossScale()
    return LossScale(config.optim.loss_scale, config.optim.loss_scale_type == "dynamic")
