"""A training run from its configuration. Everything that can be wrong is told here, before the first step."""
from __future__ import annotations

import functools
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from mindeit.build.machine import workers
from mindeit.build.teacher import load_teacher
from mindeit.errors import UserError

if TYPE_CHECKING:
    from mindspore import nn

    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config
    from mindeit.data import Mixing, Source, TrainTransform
    from mindeit.data.loader import TrainingBatches
    from mindeit.optim.groups import Trained
    from mindeit.runtime.cluster import Cluster
    from mindeit.training.evaluate import Evaluation
    from mindeit.training.live import Live
    from mindeit.training.loop import Journey, Plan, Training
    from mindeit.training.saved import Shelf
    from mindeit.training.scaling import LossScale
    from mindeit.training.step import Stepper


def training(config: Config, cluster: Cluster) -> Training:
    from mindeit.training.loop import Journey, Training
    from mindeit.training import saved
    from mindeit.training.scaling import LossScale

    source, held_out = _sources(config)
    _check_amount(config, source, cluster)
    folder, resumed = _folder(config)
    student, card = _student(config, source)
    if resumed:
        _check_resumable(config, resumed, card, cluster)
    objective = _objective(config, student, card)
    stepper, live, count = _stepper(config, student, objective, cluster)
    scaled = config.run.amp_level in ("O2", "O3")
    scale = LossScale(config.optim.loss_scale, config.optim.loss_scale_type == "dynamic") if scaled else LossScale()
    journey = Journey()
    if resumed:
        _restore(resumed, live, scale, journey)
    if cluster.ranks > 1:
        cluster.broadcast(live.all)
    shelf = saved.Shelf(
        folder, interval=config.checkpoint.ckpt_save_interval, keep=config.checkpoint.keep_checkpoint_max,
        owner=cluster.main,
    )
    return Training(
        plan=_plan(config, source, cluster),
        stepper=stepper,
        live=live,
        scale=scale,
        journey=journey,
        cluster=cluster,
        batches=_batches(config, source, card, cluster),
        draws=_draws(config.run.seed, count, getattr(objective, "views", 1)),
        evaluate=functools.partial(_evaluate, config, held_out, student, objective, card, cluster),
        save=functools.partial(_save, config, shelf, live, card, scale, cluster),
        record=_recorder(folder, cluster, journey.epoch if resumed else None),
        last_good=lambda: str(shelf.last_good or "none yet"),
    )


def _sources(config: Config) -> tuple[Source, Optional[Source]]:
    """For training and for evaluation; they agree about the classes."""
    from mindeit.data import open_source

    data = config.data
    source = open_source(data.dataset, data.data_dir, config.train.train_split, num_classes=config.model.num_classes)
    if not config.schedule.val_while_train:
        return source, None
    held_out = open_source(
        data.dataset, data.data_dir, data.val_split, num_classes=config.model.num_classes, label_file=data.label_file
    )
    if held_out.num_classes != source.num_classes:
        raise UserError(f"{data.data_dir}: {config.train.train_split} has {source.num_classes} classes, "
                        f"{data.val_split} {held_out.num_classes}; they have to be the same")
    return source, held_out


def _check_amount(config: Config, source: Source, cluster: Cluster) -> None:
    pictures, a_step = len(source), config.data.batch_size * cluster.ranks
    where = f"{config.data.data_dir or config.data.dataset} has {pictures} pictures to train on"
    if pictures < cluster.ranks:
        raise UserError(f"{where}, fewer than the {cluster.ranks} ranks")
    if pictures < a_step:
        raise UserError(f"{where}, fewer than one step takes: batch_size {config.data.batch_size} x {cluster.ranks} ranks")
    accumulation, batches = config.optim.gradient_accumulation_steps, _batches_per_epoch(config, source, cluster)
    if batches < accumulation:
        raise UserError(f"gradient_accumulation_steps is {accumulation}, but an epoch has {batches} batches a rank; "
                        "use fewer, or a smaller batch_size")


def _folder(config: Config) -> tuple[str, Optional[Path]]:
    """Where the run goes, and the checkpoint it continues."""
    from mindeit import files
    from mindeit.training import saved

    folder, resume = config.checkpoint.ckpt_save_dir, config.checkpoint.resume
    files.check_writable(Path(folder) / saved.LAST)
    if resume not in (None, "auto"):
        return folder, files.existing_file(resume)
    found = saved.newest_sound(folder)
    if found and resume is None:
        raise UserError(f"{folder} holds a run already ({found.name}); --resume auto goes on with it, or choose another "
                        "--ckpt_save_dir")
    return folder, found


def _check_resumable(config: Config, path: Path, card: ModelCard, cluster: Cluster) -> None:
    from mindeit.training import saved

    saved.check_resumable(
        saved.load(path).record, path, model=card.model, num_classes=card.num_classes, opt=config.optim.opt,
        ranks=cluster.ranks, batch_size=config.data.batch_size, accumulation=config.optim.gradient_accumulation_steps,
    )


def _student(config: Config, source: Source) -> tuple[nn.Cell, ModelCard]:
    """Fresh, or from a file; a head of another width and a table of another grid start anew."""
    from mindeit.checkpoint import card_for
    from mindeit.convert.load import load_model
    from mindeit.models.registry import build, spec

    model, data = config.model, config.data
    rates = {"drop_path_rate": model.drop_path_rate, "drop_rate": model.drop_rate}
    classes = model.num_classes or source.num_classes
    names = source.class_names if classes == source.num_classes else None
    path = model.ckpt_path
    if model.pretrained:
        from mindeit.convert.pretrained import fetch_pretrained

        path = str(fetch_pretrained(model.model))
    if path:
        student, card = load_model(
            path, model=model.model, num_classes=classes, image_size=data.image_resize, use_ema=model.use_ema, **rates
        )
    elif model.model:
        student = build(model.model, num_classes=classes, image_size=data.image_resize, **rates)
        card = card_for(spec(model.model), classes, data.image_resize)
    else:
        raise UserError("no model: give --config FILE, --model NAME or --ckpt_path FILE")
    own = {key: getattr(data, key) for key in ("crop_pct", "mean", "std") if getattr(data, key) is not None}
    return student, replace(card, class_names=names, **own)


def _objective(config: Config, student: nn.Cell, card: ModelCard) -> nn.Cell:
    from mindeit import losses, objectives
    from mindeit.runtime import precision

    loss = config.loss
    criterion = losses.cross_entropy
    if loss.loss == "BCE":
        criterion = functools.partial(losses.binary_cross_entropy, threshold=loss.bce_target_threshold)
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


def _stepper(
    config: Config, student: nn.Cell, objective: nn.Cell, cluster: Cluster
) -> tuple[Stepper, Live, int]:
    """The step, the parameters it changes, and how many draws a picture's drop paths take."""
    from mindeit import optim
    from mindeit.layers.drop_path import share_draws
    from mindeit.optim.groups import trained_parameters
    from mindeit.training.live import Live
    from mindeit.training.step import Average, Clip, Gradients, Stepper, Update

    options, weights = config.optim, list(student.get_parameters())
    trained: list[Trained] = trained_parameters(
        student, options.weight_decay, layer_decay=options.layer_decay,
        attn_only=config.train.attn_only, freeze=config.train.freeze,
    )
    optimizer = optim.create(options.opt, trained, betas=options.betas, eps=options.eps, momentum=options.momentum)
    average = Average(weights, options.ema_decay) if options.ema else None
    draws = share_draws(student, config.data.batch_size * getattr(objective, "views", 1))
    clip = Clip(options.clip_mode, options.clip_value) if options.clip_grad else Clip()
    update = Update(optimizer, average, clip=clip, ranks=cluster.ranks, check_finite=config.run.amp_level in ("O2", "O3"))
    objective.set_train(config.train.train_mode)
    stepper = Stepper(Gradients(objective, trained, draws), update, trained, options.gradient_accumulation_steps)
    live = Live(weights, average.averages if average else None, optimizer.state)
    return stepper, live, 0 if draws is None else draws.shape[0]


def _restore(path: Path, live: Live, scale: LossScale, journey: Journey) -> None:
    from mindeit.training import saved

    state = saved.load(path)
    live.restore(state.model, state.ema, state.optimizer, path)
    for target, key in ((scale, "scale"), (journey, "journey")):
        for name, value in state.record[key].items():
            setattr(target, name, value)


def _batches_per_epoch(config: Config, source: Source, cluster: Cluster) -> int:
    from mindeit.data import batches_per_epoch

    repeats = max(1, config.augment.aug_repeats)
    return batches_per_epoch(len(source), config.data.batch_size, repeats=repeats, ranks=cluster.ranks)


def _plan(config: Config, source: Source, cluster: Cluster) -> Plan:
    from mindeit.optim.schedule import Schedule, scaled_lr
    from mindeit.training.loop import Plan

    schedule, accumulation = config.schedule, config.optim.gradient_accumulation_steps
    keys = ("epoch_size", "scheduler", "min_lr", "warmup_lr", "warmup_epochs", "lr_epoch_stair", "decay_epochs", "decay_rate")
    lr = scaled_lr(schedule.lr, config.data.batch_size * cluster.ranks * accumulation, schedule.unscale_lr)
    return Plan(
        epochs=schedule.epoch_size,
        batches=_batches_per_epoch(config, source, cluster) // accumulation * accumulation,
        lr_at=Schedule(lr, **{key: getattr(schedule, key) for key in keys}).lr_at,
        val_interval=schedule.val_interval if schedule.val_while_train else None,
        log_interval=config.train.log_interval,
    )


def _batches(config: Config, source: Source, card: ModelCard, cluster: Cluster) -> Callable[[int, int], TrainingBatches]:
    from mindeit.data import training_batches

    transform, mix = _transform(config, card), _mixing(config, card)

    def batches(epoch: int, first: int) -> TrainingBatches:
        return training_batches(
            source, transform, config.data.batch_size, epoch=epoch, seed=config.run.seed, start_batch=first,
            repeats=max(1, config.augment.aug_repeats), rank=cluster.rank, ranks=cluster.ranks, workers=workers(config),
            mix=mix, skip_bad_images=config.data.skip_bad_images,
        )

    return batches


def _transform(config: Config, card: ModelCard) -> TrainTransform:
    from mindeit.data import TrainTransform

    augment = config.augment
    return TrainTransform(
        card.image_size, scale=augment.scale, ratio=augment.ratio, hflip=augment.hflip,
        interpolation=config.data.interpolation, auto_augment=augment.auto_augment, color_jitter=augment.color_jitter,
        erase_probability=augment.re_prob, erase_mode=augment.re_value, erase_count=augment.re_count,
        simple_crop=augment.simple_random_crop, mean=card.mean, std=card.std,
    )


def _mixing(config: Config, card: ModelCard) -> Mixing:
    from mindeit.data import Mixing

    augment = config.augment
    return Mixing(
        card.num_classes, mixup=augment.mixup, cutmix=augment.cutmix, probability=augment.mixup_prob,
        switch_probability=augment.switch_prob, mode=augment.mixup_mode, smoothing=config.loss.label_smoothing,
        off_epoch=augment.mixup_off_epoch,
    )


def _draws(seed: int, count: int, views: int) -> Callable[[int, Any], Any]:
    """What the drop paths read: it depends on seed, epoch and position alone."""
    from mindeit.data import uniform_draws

    def draws(epoch: int, positions: Any) -> Any:
        table = uniform_draws(seed, epoch, positions, count * views)
        return table.reshape(views, -1, len(positions)).transpose(1, 0, 2).reshape(-1, views * len(positions))

    return draws


def _evaluate(
    config: Config, held_out: Source, student: nn.Cell, objective: nn.Cell, card: ModelCard, cluster: Cluster
) -> Evaluation:
    from mindspore import Tensor

    from mindeit.build.evaluation import evaluation_batches
    from mindeit.runtime.progress import progress
    from mindeit.training.evaluate import evaluate

    batches = evaluation_batches(config, held_out, card, cluster)
    shown = progress(batches, len(batches), "evaluate", images=len(held_out), shown=cluster.main)
    student.set_train(False)
    try:
        return evaluate(lambda images: student(Tensor(images)).asnumpy(), shown, card.num_classes, cluster)
    finally:
        objective.set_train(config.train.train_mode)


def _save(
    config: Config, shelf: Shelf, live: Live, card: ModelCard, scale: LossScale, cluster: Cluster, journey: Journey, *,
    epoch_done: bool = False, best: bool = False, best_ema: bool = False,
) -> None:
    from mindeit.training.saved import TrainingState

    if not cluster.main:
        return
    record = {
        "epoch": journey.epoch, "batch": journey.batch, "step": journey.step, "ranks": cluster.ranks, "opt": config.optim.opt,
        "batch_size": config.data.batch_size, "accumulation": config.optim.gradient_accumulation_steps, "seed": config.run.seed, "config": config.flat(),
        "journey": asdict(journey), "scale": asdict(scale),
    }
    state = TrainingState(live.model(), live.ema(), live.optimizer_state(), card, record)
    shelf.store(state, epoch_done=epoch_done, best=best, best_ema=best_ema)


def _recorder(folder: str, cluster: Cluster, resume_from: Optional[int]) -> Callable[[dict[str, Any]], None]:
    """Writes an epoch's figures and draws the curves anew; only the first rank does."""
    from mindeit.training import curves
    from mindeit.training.history import History

    if not cluster.main:
        return lambda record: None
    history = History(folder, resume_from=resume_from)

    def write(record: dict[str, Any]) -> None:
        history.add(record)
        curves.draw(history.records, Path(folder) / "curves.png")

    return write
