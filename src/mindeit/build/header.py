"""What a run says about itself: before the first step, in its folder, and at its end."""
from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from mindeit.build.teacher import DEFAULT

if TYPE_CHECKING:
    from mindspore import nn

    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config
    from mindeit.data import Source
    from mindeit.runtime.cluster import Cluster
    from mindeit.training.live import Live
    from mindeit.training.loop import Journey, Plan


def begin(config: Config) -> None:
    """Before MindSpore is loaded."""
    from mindeit.runtime import log
    from mindeit.runtime.environment import versions

    run, model = config.run, config.model.model or config.model.ckpt_path or "a model"
    log.begin(f"training {model} on {run.device_target}, amp_level {run.amp_level}, seed {run.seed}; {versions()}")


def say_data(config: Config, source: Source, held_out: Optional[Source]) -> None:
    from mindeit.runtime import log

    data = config.data
    others = "none to evaluate" if held_out is None else f"{len(held_out)} to evaluate ({data.val_split})"
    log.say(f"data: {data.data_dir or data.dataset}, {source.num_classes} classes, {len(source)} images to train "
            f"({config.data.train_split}), {others}")


def say_model(
    config: Config, student: nn.Cell, card: ModelCard, live: Live, changes: list[str], resumed: Optional[Path]
) -> None:
    """``changes``: what is not as the file of weights has it."""
    from mindeit.runtime import log

    sizes = {one.name: one.size for one in student.get_parameters()}
    trained = sum(one.size for one in live.flat.parameters)
    fresh = "the official weights" if config.model.pretrained else "fresh weights"
    origin = resumed or config.model.ckpt_path or fresh
    log.say(f"model: {card.model}, {card.image_size} pixels, {card.num_classes} classes, "
            f"{sum(sizes.values()) / 1e6:.2f} M parameters, {trained / 1e6:.2f} M train, from {origin}")
    for change in changes if not resumed else ():
        log.say(f"model: {change}")
    if config.loss.distillation_type != "none":
        loss = config.loss
        log.say(f"teacher: {loss.teacher or loss.teacher_ckpt_path or DEFAULT}, {loss.distillation_type} distillation, "
                f"from {loss.teacher_ckpt_path or 'the official weights'}")


def say_plan(
    config: Config, plan: Plan, cluster: Cluster, journey: Journey, folder: Path, resumed: Optional[Path]
) -> None:
    from mindeit.runtime import log

    batch, steps = config.data.batch_size, config.optim.gradient_accumulation_steps
    next_epoch = min(journey.epoch + 1, plan.epochs)
    ranks = f" on each of {cluster.ranks} ranks" if cluster.ranks > 1 else ""
    batches = f" x {steps} batches" if steps > 1 else ""
    log.say(f"run: {plan.epochs} epochs of {plan.batches // steps} updates of {batch} images{batches}{ranks}, learning "
            f"rate {plan.lr_at(next_epoch - 1, 0):.3g} in epoch {next_epoch}, into {folder}")
    if resumed:
        after = f"epoch {journey.epoch}" + (f" and {journey.batch} batches" if journey.batch else "")
        log.say(f"resumed: {resumed}, after {after}, {journey.step} updates; {_changes(config, resumed)}")


def _changes(config: Config, resumed: Path) -> str:
    """What is set otherwise than when the checkpoint was saved."""
    from mindeit.checkpoint import read_record

    before = (read_record(resumed) or {}).get("config", {})
    now = {key: list(value) if isinstance(value, tuple) else value for key, value in config.flat().items()}
    changed = [f"{key} {before[key]} -> {now[key]}" for key in now
               if key in before and key != "resume" and before[key] != now[key]]
    return f"changed: {', '.join(changed)}" if changed else "the same configuration"


def origin(config: Config, cluster: Cluster) -> dict[str, Any]:
    """How this run is made, for its checkpoints."""
    from mindeit.runtime.environment import machine, versions

    return {
        "command": shlex.join(["python", *sys.argv]), "folder": os.getcwd(), "versions": versions(),
        "device": f"{config.run.device_target}, {machine()}", "ranks": cluster.ranks,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def write_config(config: Config, made: dict[str, Any], folder: Path) -> None:
    """``config.yaml``: what `train.py -c` takes, and in comments the rest."""
    from mindeit.config.show import run_text
    from mindeit.files import atomic
    from mindeit.training.run_folder import CONFIG, CONFIG_MARK

    head = [CONFIG_MARK, *(f"# {key}: {value}" for key, value in made.items())]
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text("\n".join([*head, run_text(config), ""]), encoding="utf-8")


def say_end(config: Config, folder: Path, seconds: float) -> None:
    """The best, where it is, and what to do with it."""
    from mindeit.runtime import log
    from mindeit.training import saved
    from mindeit.training.rehearsal import span

    bests = saved.bests(folder)
    texts = [f"{title} {accuracy:.3f} (epoch {epoch}) in {path}" for title, path, epoch, accuracy in bests]
    done = f"done in {span(seconds)}: " if seconds else "done before: "
    log.say(done + (", ".join(texts) or f"{folder / saved.LAST}, never evaluated"))
    best = max(bests, key=lambda found: found[3])[1] if bests else folder / saved.LAST
    words = {"--ckpt_path": str(best), "--dataset": config.data.dataset, "--data_dir": config.data.data_dir,
             "--val_split": config.data.val_split}
    chosen = [(key, value) for key, value in words.items()
              if value and (key, value) not in (("--dataset", "image_folder"), ("--val_split", "val"))]
    log.say(f"next: python validate.py {shlex.join(word for pair in chosen for word in pair)}")
