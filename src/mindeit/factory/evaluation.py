"""What ``validate.py`` does: accuracy, a model's summary, the contents of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import nn

from mindeit.config import Config
from mindeit.data import Division, Source, WaitTimer, number_as
from mindeit.data.imagenet_sets import ImageNetSource
from mindeit.data.split import beside
from mindeit.errors import UserError
from mindeit.factory import agreement, datasets
from mindeit.factory.environment import data_workers
from mindeit.factory.trained_model import trained_file, trained_model
from mindeit.layers.normalised import Normalised
from mindeit.models.registry import build
from mindeit.models.summary import Summary, summary
from mindeit.predict.predictor import on_arrays
from mindeit.runtime import device
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.memory import check_fits
from mindeit.runtime.progress import progress
from mindeit.training import contents, views
from mindeit.training.evaluate import Batch, Evaluation, evaluate
from mindeit.training.predictions import Predictions
from mindeit.weights.card import ModelCard
from mindeit.weights.load import load_for_use

if TYPE_CHECKING:
    from mindeit.predict.predictor import Model
    from mindeit.training.details import Details


@dataclass(frozen=True)
class Validation:
    """``about``: card, class names, skipped images and waiting time, for the report; ``details``: on rank 0, if asked
    for."""

    result: Evaluation
    model: Model
    source: Source
    about: dict[str, Any]
    details: Details | None


def validate(
    config: Config, cluster: Cluster, *, detailed: bool, tta: str | None, providers: Sequence[str] = ()
) -> Validation:
    """Evaluate; ``detailed`` keeps the logits of all images, ``tta`` names the views of each that are averaged."""
    source = datasets.held_out_source(config, _division(config))
    agreement.check(
        config, cluster, images={config.data.val_split: source}, weights={"the model": trained_file(config)}
    )
    model, card = trained_model(config, providers)
    if not card.num_classes:
        raise UserError(
            f"{config.model.ckpt_path} gives no logits, and classes are needed; export it without --num_classes 0"
        )
    places = _matched(source, card, config.data.data_dir or config.data.dataset)
    datasets.say_notes(source, cluster)
    if detailed:
        check_fits(8 * len(source) * card.num_classes, f"keeping the logits of {len(source)} images")
    ours = isinstance(model, nn.Cell)  # an exported file takes what it was made for
    batches = datasets.held_out_batches(
        config, source, _seen(card, tta), cluster, data_workers(config, cluster), uint8=ours and device.normalises()
    )
    run = Normalised(model, card.mean, card.std) if ours else model
    if ours:
        shape = (config.data.batch_size, 3, card.image_size, card.image_size)
        device.compile_ahead(run, shape, shown=cluster.main)
    compute = _logits(run, places, tta, card.image_size)
    timed = WaitTimer(batches)
    shown = progress(timed, len(batches), "validate", images=len(source), shown=cluster.main)
    kept: list[Batch] = []
    result = evaluate(
        compute, shown, source.num_classes, cluster, kept=kept if detailed else None, answers=source.answers
    )
    bad = np.zeros(len(source), np.float32)  # each rank knows its own
    bad[batches.bad] = 1
    skipped = [source.where(int(index)) for index in np.flatnonzero(cluster.total(bad))]
    about = {"card": card, "names": source.class_names, "skipped": skipped, "data_wait": timed.share, "tta": tta}
    predictions = Predictions.gathered(kept, batches.indices, cluster) if detailed else None
    return Validation(result, model, source, about, _details(predictions, source, card) if predictions else None)


def _logits(model: Model, places: np.ndarray | None, tta: str | None, image_size: int) -> views.Run:
    compute = on_arrays(model)
    compute = views.averaged(compute, tta, image_size) if tta else compute
    return compute if places is None else views.of_classes(compute, places)


def _matched(source: Source, card: ModelCard, where: str) -> np.ndarray | None:
    """Number the classes as the checkpoint does, or tell which of its logits count, in which order."""
    if not isinstance(source, ImageNetSource):
        number_as(source, card.num_classes, card.class_names, where=where, other="the checkpoint")
        return None
    if source.answers is not None:
        source.labels = np.arange(len(source), dtype=np.int32)  # rows of the answers, as `evaluate` takes them
    return source.places_in(card.num_classes, card.class_names, where=where, other="the checkpoint")


def _seen(card: ModelCard, tta: str | None) -> ModelCard:
    """The card for the images that views are cut from."""
    if tta != "5crop":
        return card
    whole = int(card.image_size / card.crop_pct)
    if whole == card.image_size:
        raise UserError(
            f"--tta 5crop takes corners of what crop_pct cuts off, and crop_pct is {card.crop_pct:g}; allowed: flip"
        )
    return replace(card, image_size=whole, crop_pct=1.0)


def _details(predictions: Predictions, source: Source, card: ModelCard) -> Details:
    from mindeit.training.details import Details  # scikit-learn, which accuracy does without

    return Details(predictions, source.class_names, source.where, card.temperature)


def _division(config: Config) -> Division:
    """Of a plain class folder what the checkpoint's run held out; without a run, all of it."""
    own = config.data.split_file
    return Division(share=1, file=own or beside(trained_file(config)), needed=own is not None)


def summarize(config: Config) -> Summary:
    """The summary of the named model, or of the checkpoint's."""
    model = config.model
    if model.ckpt_path:
        return summary(load_for_use(model.ckpt_path, model=model.model, check=not model.no_check)[0])
    if not model.model:
        raise UserError("--summary needs --model NAME (or a config, or --ckpt_path FILE)")
    classes = 1000 if model.num_classes is None else model.num_classes
    return summary(build(model.model, num_classes=classes, image_size=config.data.image_size))


def show(config: Config) -> list[str]:
    """Lines about the checkpoint."""
    if not config.model.ckpt_path:
        raise UserError("--show needs --ckpt_path FILE")
    return contents.show(config.model.ckpt_path)
