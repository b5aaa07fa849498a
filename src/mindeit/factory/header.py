"""What a run logs about itself: before the first step, in its folder, and at its end."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import nn

from mindeit.config import Config
from mindeit.config.show import run_text
from mindeit.data import Source
from mindeit.factory.teacher import DEFAULT
from mindeit.runtime import log
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.environment import from_console, machine, versions
from mindeit.training import run_checkpoints
from mindeit.training.average import kept
from mindeit.training.loop import Plan
from mindeit.training.run_folder import CONFIG_MARK
from mindeit.training.train_state import TrainState
from mindeit.training.variables import TrainVariables
from mindeit.weights.card import ModelCard

MOST_KEPT = 0.1  # of the initial weights in the average, without a word


def say_data(config: Config, source: Source, held_out: Source | None) -> None:
    data = config.data
    others = "none to evaluate" if held_out is None else f"{len(held_out)} to evaluate ({data.val_split})"
    log.say(
        f"data: {data.data_dir or data.dataset}, {source.num_classes} classes, {len(source)} images to train "
        f"({config.data.train_split}), {others}"
    )


def say_model(
    config: Config,
    student: nn.Cell,
    card: ModelCard,
    variables: TrainVariables,
    changes: list[str],
    resumed: Path | None,
) -> None:
    """``changes``: what differs from the file of weights."""
    size = sum(parameter.size for parameter in student.get_parameters())
    trained = sum(parameter.size for parameter in variables.flat.parameters)
    fresh = "the official weights" if config.model.pretrained else "fresh weights"
    origin = resumed or config.model.ckpt_path or fresh
    log.say(
        f"model: {card.model}, {card.image_size} pixels, {card.num_classes} classes, "
        f"{size / 1e6:.2f} M parameters, {trained / 1e6:.2f} M train, from {origin}"
    )
    for change in changes if not resumed else ():
        log.say(f"model: {change}")
    if config.loss.distillation_type != "none":
        loss = config.loss
        log.say(
            f"teacher: {loss.teacher or loss.teacher_ckpt_path or DEFAULT}, {loss.distillation_type} distillation, "
            f"from {loss.teacher_ckpt_path or 'the official weights'}"
        )


def say_plan(config: Config, plan: Plan, cluster: Cluster, state: TrainState, folder: Path) -> None:
    batch, steps = config.data.batch_size, config.optim.gradient_accumulation_steps
    next_epoch = min(state.epoch + 1, plan.epochs)
    ranks = f" on each of {cluster.ranks} ranks" if cluster.ranks > 1 else ""
    batches = f" x {steps} batches" if steps > 1 else ""
    log.say(
        f"run: {plan.epochs} epochs of {plan.batches // steps} updates of {batch} images{batches}{ranks}, learning "
        f"rate {plan.lr_at(next_epoch - 1, 0):.3g} in epoch {next_epoch}, into {folder}"
    )


def say_average(config: Config, updates: int, warmup: bool) -> None:
    """A word if the average would end close to the weights it began with."""
    options = config.optim
    if not options.ema:
        return
    share = kept(options.ema_decay, updates, warmup=warmup)
    if share > MOST_KEPT:
        log.say(
            f"note: after {updates} updates the averaged weights (EMA) still hold {share:.0%} of the initial ones; "
            "--ema_warmup True, or a lower --ema_decay, lets go of them"
        )


def say_class_weights(source: Source, weights: np.ndarray | None) -> None:
    if weights is not None:
        low, high = int(weights.argmin()), int(weights.argmax())
        names = source.class_names
        log.say(f"class weights: {weights[low]:.3g} ({names[low]}) to {weights[high]:.3g} ({names[high]})")


def say_resumed(config: Config, path: object, record: Mapping[str, Any], state: TrainState) -> None:
    """Where the run goes on, and which settings differ from those of the checkpoint."""
    after = f"epoch {state.epoch}" + (f" and {state.batch} batches" if state.batch else "")
    before = record.get("config", {})
    now = {key: list(value) if isinstance(value, tuple) else value for key, value in config.flat().items()}
    changed = [
        f"{key} {before[key]} -> {now[key]}"
        for key in now
        if key in before and key != "resume" and before[key] != now[key]
    ]
    changes = f"changed: {', '.join(changed)}" if changed else "the same configuration"
    log.say(f"resumed: {path}, after {after}, {state.step} updates; {changes}")


def origin(config: Config, cluster: Cluster) -> dict[str, Any]:
    """How this run was started, for its checkpoints."""
    program = sys.argv[0].split() if from_console() else ["python", sys.argv[0]]
    return {
        "command": shlex.join([*program, *sys.argv[1:]]),
        "folder": os.getcwd(),
        "versions": versions(),
        "device": f"{config.run.device_target}, {machine()}",
        "ranks": cluster.ranks,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def config_text(config: Config, made: Mapping[str, Any]) -> str:
    """``config.yaml``: what `train.py -c` takes, and in comments how the run was ``made``."""
    head = [CONFIG_MARK, *(f"# {key}: {value}" for key, value in made.items())]
    return "\n".join([*head, run_text(config), ""])


def say_end(config: Config, folder: Path, seconds: float) -> None:
    """The best results, their checkpoints, and how to validate them."""
    bests = run_checkpoints.bests(folder)
    texts = [f"{title} {accuracy:.3f} (epoch {epoch}) in {path}" for title, path, epoch, accuracy in bests]
    done = f"done in {log.span(seconds)}: " if seconds else "done before: "
    log.say(done + (", ".join(texts) or f"{folder / run_checkpoints.LAST}, never evaluated"))
    best = max(bests, key=lambda found: found[3])[1] if bests else folder / run_checkpoints.LAST
    words = {
        "--ckpt_path": str(best),
        "--dataset": config.data.dataset,
        "--data_dir": config.data.data_dir,
        "--val_split": config.data.val_split,
    }
    chosen = [
        (key, value)
        for key, value in words.items()
        if value and (key, value) not in (("--dataset", "image_folder"), ("--val_split", "val"))
    ]
    validate = "mindeit validate" if from_console() else "python validate.py"
    log.say(f"next: {validate} {shlex.join(word for pair in chosen for word in pair)}")
