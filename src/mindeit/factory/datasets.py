"""The data of a run: sources of images, transforms, and batches."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable

from mindeit.config import Config
from mindeit.config.sources import DEFAULT
from mindeit.data import (
    Division,
    EvalTransform,
    EvaluationBatches,
    Mixing,
    Source,
    TrainingBatches,
    TrainingData,
    TrainTransform,
    Workers,
    batches_per_epoch,
    evaluation_batches,
    number_as,
    open_source,
)
from mindeit.data import split as divisions
from mindeit.data.folders import PartSource
from mindeit.data.scan import scan
from mindeit.data.split import HELD_OUT, SPLIT_FILE, TRAIN, beside
from mindeit.errors import UserError
from mindeit.factory.environment import data_workers
from mindeit.objectives import OutsideTeacher
from mindeit.runtime import device, log
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.memory import check_fits
from mindeit.training.run_folder import DATA
from mindeit.training.taught_batches import TaughtBatches
from mindeit.weights.card import ModelCard


def sources(config: Config, cluster: Cluster, resumed: Path | None = None) -> tuple[Source, Source | None]:
    """The sources for training and evaluation, with the same classes."""
    data, split = config.data, config.data.train_split
    source = train_source(config, resumed)
    if config.origins["held_out"] != DEFAULT and not isinstance(source, PartSource):
        raise UserError(
            f"held_out is {data.held_out} ({config.origins['held_out']}), but {data.data_dir} has a folder '{split}' "
            "of its own; leave it out"
        )
    say_notes(source, cluster)
    if not config.schedule.val_while_train:
        return source, None
    held_out = held_out_source(config, _division(config, resumed))
    where = f"{data.data_dir or data.dataset} ({data.val_split})"
    names = source.class_names if source.named else None
    number_as(held_out, source.num_classes, names, where=where, other=f"its split '{split}'")
    say_notes(held_out, cluster)
    return source, held_out


def train_source(config: Config, resumed: Path | None = None) -> Source:
    data, division = config.data, _division(config, resumed)
    split, classes = data.train_split, config.model.num_classes
    return open_source(data.dataset, data.data_dir, split, num_classes=classes, train_split=split, division=division)


def _division(config: Config, resumed: Path | None) -> Division:
    """Of a plain class folder: as a run began, or a new one."""
    return Division(config.data.held_out, config.run.seed, config.data.split_file or beside(resumed))


def checked(config: Config, cluster: Cluster, source: Source, held_out: Source | None) -> dict[str, str]:
    """Look at all images, if asked to: what was found is said, and is `data.json` of the run, by its name."""
    if not (config.data.check_images and cluster.main):
        return {}
    parts = {config.data.train_split: source, **({config.data.val_split: held_out} if held_out is not None else {})}
    report = scan(parts, workers=data_workers(config, cluster))
    for line in report.lines():
        log.say(f"check: {line}")
    if not config.data.skip_bad_images:
        report.refuse_unreadable()
    return {DATA: json.dumps(report.as_json(), indent=1) + "\n"}


def say_notes(source: Source, cluster: Cluster) -> None:
    if cluster.main and source.notes:
        print("\n".join(f"note: {note}" for note in source.notes), file=sys.stderr, flush=True)


def check_amount(config: Config, source: Source, cluster: Cluster) -> None:
    images, a_step = len(source), config.data.batch_size * cluster.ranks
    where = f"{config.data.data_dir or config.data.dataset} has {images} images to train on"
    if images < cluster.ranks:
        raise UserError(f"{where}, fewer than the {cluster.ranks} ranks")
    if images < a_step:
        raise UserError(
            f"{where}, fewer than one step takes: batch_size {config.data.batch_size} x {cluster.ranks} ranks"
        )
    accumulation, batches = config.optim.gradient_accumulation_steps, count_batches(config, source, cluster)
    if batches < accumulation:
        raise UserError(
            f"gradient_accumulation_steps is {accumulation}, but an epoch has {batches} batches a rank; "
            "use fewer, or a smaller batch_size"
        )


def count_batches(config: Config, source: Source, cluster: Cluster) -> int:
    return batches_per_epoch(
        len(source), config.data.batch_size, repeats=config.augment.aug_repeats, ranks=cluster.ranks
    )


def training_epochs(
    config: Config,
    source: Source,
    card: ModelCard,
    cluster: Cluster,
    workers: Workers,
    outside: OutsideTeacher | None = None,
) -> Callable[[int, int], TrainingBatches | TaughtBatches]:
    """(epoch, first batch) -> the rest of that epoch, with the answers of a teacher ``outside`` the graph."""
    data = TrainingData(
        source,
        _transform(config, card),
        config.data.batch_size,
        seed=config.run.seed,
        repeats=config.augment.aug_repeats,
        rank=cluster.rank,
        ranks=cluster.ranks,
        workers=workers,
        mix=_mixing(config, card),
        skip_bad_images=config.data.skip_bad_images,
        uint8=device.normalises(),
    )
    if outside is None:
        return data.epoch
    onnx = str(config.loss.teacher_ckpt_path).endswith(".onnx")
    return lambda epoch, first: TaughtBatches(data.epoch(epoch, first), outside, beside=onnx)


def _transform(config: Config, card: ModelCard) -> TrainTransform:
    augment = config.augment
    return TrainTransform(
        card.image_size,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        vflip=augment.vflip,
        interpolation=config.data.interpolation or card.interpolation,
        auto_augment=augment.auto_augment,
        color_jitter=augment.color_jitter,
        erase_probability=augment.re_prob,
        erase_mode=augment.re_value,
        erase_count=augment.re_count,
        simple_crop=augment.simple_random_crop,
        mean=card.mean,
        std=card.std,
    )


def _mixing(config: Config, card: ModelCard) -> Mixing:
    augment = config.augment
    return Mixing(
        card.num_classes,
        mixup=augment.mixup,
        cutmix=augment.cutmix,
        cutmix_minmax=augment.cutmix_minmax,
        probability=augment.mixup_prob,
        switch_probability=augment.switch_prob,
        mode=augment.mixup_mode,
        smoothing=config.loss.label_smoothing,
        off_epoch=augment.mixup_off_epoch,
    )


def held_out_source(config: Config, division: Division) -> Source:
    data = config.data
    return open_source(
        data.dataset,
        data.data_dir,
        data.val_split,
        label_file=data.label_file,
        train_split=data.train_split,
        division=division,
    )


def split_text(source: Source, held_out: Source | None) -> dict[str, str]:
    """`split.csv` of a run on a plain class folder, by its name; nothing for other data."""
    parts = {TRAIN: source, HELD_OUT: held_out}
    tables = {part: of.table() for part, of in parts.items() if isinstance(of, PartSource)}
    return {SPLIT_FILE: divisions.text(tables)} if tables else {}


def held_out_batches(
    config: Config, source: Source, card: ModelCard, cluster: Cluster, workers: Workers, *, uint8: bool = False
) -> EvaluationBatches:
    size, count = card.image_size, config.data.batch_size
    check_fits(4 * 3 * size**2 * count, f"batch_size is {count}: a batch of images of {size} pixels")
    transform = EvalTransform(size, card.crop_pct, card.mean, card.std, card.interpolation)
    return evaluation_batches(
        source,
        transform,
        count,
        workers=workers,
        rank=cluster.rank,
        ranks=cluster.ranks,
        skip_bad_images=config.data.skip_bad_images,
        uint8=uint8,
    )
