"""A training run, built from its configuration. All mistakes are reported here, before the first step."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Callable

from mindeit.config import Config
from mindeit.data import Source, Workers
from mindeit.errors import UserError
from mindeit.factory import agreement, datasets, header
from mindeit.factory.environment import data_workers
from mindeit.factory.optimization import build_loss_scale, build_objective, build_stepper, class_weights
from mindeit.factory.student import build_student, starting_file
from mindeit.factory.teacher import is_outside, outside_teacher, teacher_file
from mindeit.layers.weight_init import seeded
from mindeit.objectives import Objective
from mindeit.optim.schedule import Schedule, scaled_lr
from mindeit.runtime import device
from mindeit.runtime.cluster import Cluster
from mindeit.training import run_checkpoints
from mindeit.training.average import FEW_UPDATES
from mindeit.training.evaluator import Evaluator
from mindeit.training.loop import Plan, Training
from mindeit.training.loss_scale import LossScale
from mindeit.training.recorder import Recorder
from mindeit.training.run_checkpoints import RunCheckpoint
from mindeit.training.run_folder import CONFIG, RunFolder
from mindeit.training.train_state import TrainState
from mindeit.training.variables import TrainVariables
from mindeit.weights.card import ModelCard

_OF_SCHEDULE = (
    "epoch_size",
    "scheduler",
    "min_lr",
    "warmup_epochs",
    "lr_epoch_stair",
    "decay_epochs",
    "decay_rate",
    "multi_step_decay_milestones",
)


def open_folder(config: Config, cluster: Cluster) -> RunFolder:
    return RunFolder(config.checkpoint.ckpt_save_dir, owner=cluster.main)


def build_training(config: Config, cluster: Cluster, folder: RunFolder) -> Training:
    resumed = folder.checkpoint(config.checkpoint.resume)
    source, held_out, texts = _open_data(config, cluster, resumed)
    with seeded(config.run.seed):
        student, card, changes = build_student(config, source)
    division = _division(config, source, cluster)
    saved = None if resumed is None else _load_resumed(config, resumed, card, division)
    plan = _plan(config, source, cluster)
    warmup = _warms_up(config, plan, saved)
    weights = class_weights(config, source)
    outside = outside_teacher(config, card) if is_outside(config) else None
    objective = build_objective(config, student, card, weights, outside)
    stepper, variables, draws = build_stepper(config, objective, card, cluster, ema_warmup=warmup)
    scale, state = build_loss_scale(config), TrainState()
    if saved is not None:
        _restore(saved, resumed, state, variables, scale)
    cluster.broadcast(variables.all)
    variables.refresh()
    facts = {**division, "ema_warmup": warmup}
    recorder = _recorder(config, cluster, folder, facts, card, state, variables, scale, texts)
    if saved is not None and cluster.main:
        recorder.check_bests()
    header.say_model(config, student, card, variables, changes, resumed)
    header.say_plan(config, plan, cluster, state, folder.path)
    header.say_average(config, _updates(config, plan), warmup)
    header.say_class_weights(source, weights)
    if saved is not None:
        header.say_resumed(config, resumed, saved.record, state)
    workers = data_workers(config, cluster)  # of training and evaluation: they take turns
    evaluator = None if held_out is None else _evaluator(config, cluster, held_out, objective, card, workers)
    report = functools.partial(
        write_report, config, folder.path, cluster, (source, held_out), card, evaluator, variables
    )
    return Training(
        plan=plan,
        stepper=stepper,
        variables=variables,
        scale=scale,
        state=state,
        cluster=cluster,
        batches=datasets.training_epochs(config, source, card, cluster, workers, outside),
        draws=draws,
        evaluator=evaluator,
        recorder=recorder,
        finished=functools.partial(_finish, config, folder.path, report),
    )


def _open_data(config: Config, cluster: Cluster, resumed: Path | None) -> tuple[Source, Source | None, dict[str, str]]:
    """What to train on, what is held out, and what the run's folder keeps about them; the ranks agree on it."""
    source, held_out = datasets.sources(config, cluster, resumed)
    datasets.check_amount(config, source, cluster)
    header.say_data(config, source, held_out)
    _check_agreement(config, cluster, source, held_out, resumed)
    found = datasets.checked(config, cluster, source, held_out) if resumed is None else {}
    return source, held_out, {**found, **datasets.split_text(source, held_out)}


def _restore(
    saved: RunCheckpoint, path: Path | None, state: TrainState, variables: TrainVariables, scale: LossScale
) -> None:
    scale.restore(saved.record["scale"])
    state.restore(saved.record["train_state"])
    variables.restore(saved.model, saved.ema, saved.optimizer, path, updates=state.step, scale=scale)


def _finish(config: Config, folder: Path, report: Callable[[], None], seconds: float) -> None:
    if config.checkpoint.report and seconds:
        report()
    header.say_end(config, folder, seconds)


def write_report(*parts: Any) -> None:
    from mindeit.factory import report  # scikit-learn and Jinja2, which no step waits for

    report.at_end(*parts)


def _check_agreement(
    config: Config, cluster: Cluster, source: Source, held_out: Source | None, resumed: Path | None
) -> None:
    agreement.check(
        config,
        cluster,
        images={config.data.train_split: source, config.data.val_split: held_out},
        weights={
            "the student": starting_file(config),
            "the teacher": teacher_file(config),
            "the checkpoint to resume": resumed,
        },
    )


def _division(config: Config, source: Source, cluster: Cluster) -> dict[str, int]:
    """What decides which images a step of an epoch takes, and how they are augmented."""
    return {
        "ranks": cluster.ranks,
        "batch_size": config.data.batch_size,
        "images": len(source),
        "seed": config.run.seed,
        "accumulation": config.optim.gradient_accumulation_steps,
        "aug_repeats": config.augment.aug_repeats,
    }


def _load_resumed(config: Config, path: Path, card: ModelCard, division: dict[str, int]) -> RunCheckpoint:
    """Another model, other classes or images divided otherwise cannot go on."""
    saved = run_checkpoints.load(path, verified=config.checkpoint.resume == "auto")
    same = {"model": card.model, "num_classes": card.num_classes, "opt": config.optim.opt}
    run_checkpoints.check_resumable(saved.record, path, same=same, division=division)
    for label, (now, then) in enumerate(zip(card.class_names or (), saved.card.class_names or ())):
        if now != then:
            raise UserError(f"{path}: cannot be resumed, class {label} is '{now}' now, it was saved as '{then}'")
    return saved


def _recorder(
    config: Config,
    cluster: Cluster,
    folder: RunFolder,
    facts: dict[str, Any],
    card: ModelCard,
    state: TrainState,
    variables: TrainVariables,
    scale: LossScale,
    texts: dict[str, str],
) -> Recorder:
    made, checkpoints = header.origin(config, cluster), config.checkpoint
    return Recorder(
        folder.path,
        state,
        variables,
        scale,
        card,
        facts={"opt": config.optim.opt, **facts, "config": config.flat(), "made": made},
        texts={CONFIG: header.config_text(config, made), **texts},
        interval=checkpoints.ckpt_save_interval,
        keep=checkpoints.keep_checkpoint_max,
        trackers=checkpoints.tracker,
        owner=cluster.main,
    )


def _evaluator(
    config: Config, cluster: Cluster, held_out: Source, objective: Objective, card: ModelCard, workers: Workers
) -> Evaluator:
    batches = datasets.held_out_batches(config, held_out, card, cluster, workers, uint8=device.normalises())
    return Evaluator(batches, objective, card, cluster, config.train.train_mode)


def _plan(config: Config, source: Source, cluster: Cluster) -> Plan:
    schedule, accumulation = config.schedule, config.optim.gradient_accumulation_steps
    lr = scaled_lr(schedule.lr, config.data.batch_size * cluster.ranks * accumulation, schedule.unscale_lr)
    warmup_lr = schedule.warmup_lr if schedule.warmup_factor is None else lr * schedule.warmup_factor
    rates = Schedule(lr, warmup_lr=warmup_lr, **{key: getattr(schedule, key) for key in _OF_SCHEDULE})
    return Plan(
        epochs=schedule.epoch_size,
        batches=datasets.count_batches(config, source, cluster) // accumulation * accumulation,
        lr_at=rates.lr_at,
        val_interval=schedule.val_interval if schedule.val_while_train else None,
        log_interval=config.train.log_interval,
        save_steps=config.checkpoint.ckpt_save_steps,
        patience=schedule.patience,
    )


def _warms_up(config: Config, plan: Plan, saved: RunCheckpoint | None) -> bool:
    """Whether the average does; a resumed run goes on as it began."""
    asked = config.optim.ema_warmup
    if asked is None and saved is not None:
        asked = saved.record.get("ema_warmup", False)  # what runs did before there was a choice
    return _updates(config, plan) < FEW_UPDATES if asked is None else asked


def _updates(config: Config, plan: Plan) -> int:
    """Of the whole run."""
    return plan.epochs * plan.batches // config.optim.gradient_accumulation_steps
