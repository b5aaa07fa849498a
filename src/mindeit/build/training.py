"""A training run from its configuration. Everything that can be wrong is told here, before the first step."""
from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from mindeit.build import agreement, header, learner, material, outcome
from mindeit.build.evaluation import evaluation_batches
from mindeit.build.machine import data_workers

if TYPE_CHECKING:
    from mindspore import nn

    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config
    from mindeit.data import EvaluationBatches, Source
    from mindeit.runtime.cluster import Cluster
    from mindeit.training.evaluate import Evaluation
    from mindeit.training.loop import Plan, Training
    from mindeit.training.run_folder import RunFolder


def run_folder(config: Config, cluster: Cluster) -> RunFolder:
    from mindeit.training.run_folder import RunFolder

    return RunFolder(config.checkpoint.ckpt_save_dir, owner=cluster.main)


def training(config: Config, cluster: Cluster, folder: RunFolder) -> Training:
    from mindeit.training import saved
    from mindeit.training.loop import Journey, Training

    source, held_out = material.sources(config, cluster)
    material.check_amount(config, source, cluster)
    header.say_data(config, source, held_out)
    resumed = folder.checkpoint(config.checkpoint.resume)
    agreement.check(
        config, cluster, pictures={config.data.train_split: source, config.data.val_split: held_out},
        weights={"the student": learner.starting_file(config), "the teacher": learner.teacher_file(config),
                 "the checkpoint to resume": resumed},
    )
    student, card, changes = learner.student(config, source)
    divided = outcome.division(config, source, cluster)
    if resumed:
        outcome.check_resumable(config, resumed, card, divided)
    objective = learner.objective(config, student, card)
    stepper, live, count = learner.stepper(config, student, objective, cluster)
    scale, journey = learner.loss_scale(config), Journey()
    if resumed:
        outcome.restore(resumed, live, scale, journey)
    # What is in its way is told before anything is written.
    record = outcome.recorder(folder.path, cluster, journey.epoch - (journey.trained is not None))
    cluster.broadcast(live.all)
    live.refresh()
    shelf = saved.Shelf(
        folder.path, interval=config.checkpoint.ckpt_save_interval, keep=config.checkpoint.keep_checkpoint_max,
        owner=cluster.main,
    )
    if resumed and cluster.main:
        outcome.believe_bests(shelf, journey)
    header.say_model(config, student, card, live, changes, resumed)
    plan, made = _plan(config, source, cluster), header.origin(config, cluster)
    header.say_plan(config, plan, cluster, journey, folder.path, resumed)
    workers = data_workers(config, cluster)  # of training and evaluation: they take turns
    examined = None if held_out is None else evaluation_batches(config, held_out, card, cluster, workers)
    return Training(
        plan=plan,
        stepper=stepper,
        live=live,
        scale=scale,
        journey=journey,
        cluster=cluster,
        batches=material.batches(config, source, card, cluster, workers),
        draws=material.draws(config.run.seed, count, getattr(objective, "views", 1)),
        held_out=examined,
        evaluate=functools.partial(
            _evaluate, config, examined, student, objective, card, cluster, iter(("the evaluation",))
        ),
        save=functools.partial(outcome.save, config, shelf, live, card, scale, cluster.main, divided, made),
        record=record,
        begins=functools.partial(_begins, config, made, folder, cluster),
        ends=functools.partial(header.say_end, config, folder.path),
        last_good=lambda: str(shelf.last_good or "none yet"),
    )


def _begins(config: Config, made: dict[str, Any], folder: RunFolder, cluster: Cluster) -> None:
    if cluster.main:
        header.write_config(config, made, folder.path)


def _plan(config: Config, source: Source, cluster: Cluster) -> Plan:
    from mindeit.optim.schedule import Schedule, scaled_lr
    from mindeit.training.loop import Plan

    schedule, accumulation = config.schedule, config.optim.gradient_accumulation_steps
    keys = ("epoch_size", "scheduler", "min_lr", "warmup_epochs", "lr_epoch_stair", "decay_epochs", "decay_rate",
            "multi_step_decay_milestones")
    lr = scaled_lr(schedule.lr, config.data.batch_size * cluster.ranks * accumulation, schedule.unscale_lr)
    warmup_lr = schedule.warmup_lr if schedule.warmup_factor is None else lr * schedule.warmup_factor
    return Plan(
        epochs=schedule.epoch_size,
        batches=material.batches_per_epoch(config, source, cluster) // accumulation * accumulation,
        lr_at=Schedule(lr, warmup_lr=warmup_lr, **{key: getattr(schedule, key) for key in keys}).lr_at,
        val_interval=schedule.val_interval if schedule.val_while_train else None,
        log_interval=config.train.log_interval,
        save_steps=config.checkpoint.ckpt_save_steps,
    )


def _evaluate(
    config: Config, batches: EvaluationBatches, student: nn.Cell, objective: nn.Cell, card: ModelCard,
    cluster: Cluster, titles: Iterator[str], *, only_batches: Optional[int] = None,
) -> Evaluation:
    """``titles``: of the graph, for as often as it compiles."""
    from mindeit.runtime.graph import compiled, to_device
    from mindeit.runtime.progress import progress
    from mindeit.training.evaluate import evaluate

    shown = progress(batches, len(batches), "evaluate", images=batches.images, shown=cluster.main)
    student.set_train(False)
    cluster.broadcast([one for one in student.get_parameters() if not one.requires_grad])  # BatchNorm's, of each rank
    try:
        some = itertools.islice(shown, only_batches)
        graph = compiled(student, next(titles, ""))
        return evaluate(lambda images: graph(to_device(images)).asnumpy(), some, card.num_classes, cluster)
    finally:
        objective.set_train(config.train.train_mode)
