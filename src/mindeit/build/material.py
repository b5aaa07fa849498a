"""What is learned from: pictures, how they are changed, and in which portions they come."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Optional

from mindeit.errors import UserError

if TYPE_CHECKING:
    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config
    from mindeit.data import Mixing, Source, TrainingBatches, TrainTransform, Workers
    from mindeit.runtime.cluster import Cluster


def sources(config: Config, cluster: Cluster) -> tuple[Source, Optional[Source]]:
    """For training and for evaluation; they agree about the classes."""
    from mindeit.data import number_as, open_source

    data, split = config.data, config.data.train_split
    source = open_source(
        data.dataset, data.data_dir, split, num_classes=config.model.num_classes, train_split=split
    )
    say_notes(source, cluster)
    if not config.schedule.val_while_train:
        return source, None
    held_out = open_source(
        data.dataset, data.data_dir, data.val_split, label_file=data.label_file, train_split=split
    )
    where = f"{data.data_dir or data.dataset} ({data.val_split})"
    names = source.class_names if source.named else None
    number_as(held_out, source.num_classes, names, where=where, other=f"its split '{split}'")
    say_notes(held_out, cluster)
    return source, held_out


def say_notes(source: Source, cluster: Cluster) -> None:
    if cluster.main and source.notes:
        print("\n".join(f"note: {note}" for note in source.notes), file=sys.stderr, flush=True)


def check_amount(config: Config, source: Source, cluster: Cluster) -> None:
    pictures, a_step = len(source), config.data.batch_size * cluster.ranks
    where = f"{config.data.data_dir or config.data.dataset} has {pictures} pictures to train on"
    if pictures < cluster.ranks:
        raise UserError(f"{where}, fewer than the {cluster.ranks} ranks")
    if pictures < a_step:
        raise UserError(f"{where}, fewer than one step takes: batch_size {config.data.batch_size} x {cluster.ranks} "
                        "ranks")
    accumulation, batches = config.optim.gradient_accumulation_steps, batches_per_epoch(config, source, cluster)
    if batches < accumulation:
        raise UserError(f"gradient_accumulation_steps is {accumulation}, but an epoch has {batches} batches a rank; "
                        "use fewer, or a smaller batch_size")


def batches_per_epoch(config: Config, source: Source, cluster: Cluster) -> int:
    from mindeit.data import batches_per_epoch

    repeats = max(1, config.augment.aug_repeats)
    return batches_per_epoch(len(source), config.data.batch_size, repeats=repeats, ranks=cluster.ranks)


def batches(
    config: Config, source: Source, card: ModelCard, cluster: Cluster, workers: Workers
) -> Callable[[int, int], TrainingBatches]:
    """(epoch, first batch) -> what is left of that epoch."""
    from mindeit.data import TrainingData

    return TrainingData(
        source, _transform(config, card), config.data.batch_size, seed=config.run.seed,
        repeats=config.augment.aug_repeats, rank=cluster.rank, ranks=cluster.ranks, workers=workers,
        mix=_mixing(config, card), skip_bad_images=config.data.skip_bad_images,
    ).epoch


def _transform(config: Config, card: ModelCard) -> TrainTransform:
    from mindeit.data import TrainTransform

    augment = config.augment
    return TrainTransform(
        card.image_size, scale=augment.scale, ratio=augment.ratio, hflip=augment.hflip, vflip=augment.vflip,
        interpolation=config.data.interpolation or card.interpolation,
        auto_augment=augment.auto_augment, color_jitter=augment.color_jitter,
        erase_probability=augment.re_prob, erase_mode=augment.re_value, erase_count=augment.re_count,
        simple_crop=augment.simple_random_crop, mean=card.mean, std=card.std,
    )


def _mixing(config: Config, card: ModelCard) -> Mixing:
    from mindeit.data import Mixing

    augment = config.augment
    return Mixing(
        card.num_classes, mixup=augment.mixup, cutmix=augment.cutmix,
        cutmix_minmax=augment.cutmix_minmax, probability=augment.mixup_prob,
        switch_probability=augment.switch_prob, mode=augment.mixup_mode, smoothing=config.loss.label_smoothing,
        off_epoch=augment.mixup_off_epoch,
    )


def draws(seed: int, count: int, views: int) -> Callable[[int, Any], Any]:
    """What the drop paths read: it depends on seed, epoch and position alone."""
    from mindeit.data import uniform_draws

    def draws(epoch: int, positions: Any) -> Any:
        table = uniform_draws(seed, epoch, positions, count * views)
        return table.reshape(views, -1, len(positions)).transpose(1, 0, 2).reshape(-1, views * len(positions))

    return draws
