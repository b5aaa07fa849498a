"""Models and batches for evaluation and prediction."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mindeit.build import agreement
from mindeit.build.machine import data_workers
from mindeit.build.material import say_notes
from mindeit.errors import UserError

if TYPE_CHECKING:
    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config
    from mindeit.data import EvaluationBatches, Source, Workers
    from mindeit.deploy.exported import Exported
    from mindeit.deploy.predictor import Model, Predictor
    from mindeit.models.summary import Summary
    from mindeit.runtime.cluster import Cluster
    from mindeit.training.evaluate import Evaluation


def trained_model(config: Config) -> tuple[Model, ModelCard]:
    """The model of ``ckpt_path`` or ``pretrained`` in evaluation mode, and its card, which nothing may contradict."""
    from mindeit.convert.load import load_for_use
    from mindeit.deploy.exported import is_exported
    from mindeit.runtime import precision

    path = _weights(config)
    asked = {
        "model": config.model.model,
        "num_classes": config.model.num_classes,
        "image_size": config.data.image_resize,
        **evaluation_options(config),
    }
    if is_exported(path):
        return _exported(config, path, asked)
    model, card = load_for_use(path, use_ema=config.model.use_ema, check=not config.model.no_check, **asked)
    return precision.apply(model, config.run.amp_level).set_train(False), card


def evaluation_options(config: Config) -> dict[str, Any]:
    """How evaluation prepares images, as far as it is asked for: fields of the card that holds it."""
    options = {key: getattr(config.data, key) for key in ("crop_pct", "mean", "std", "interpolation")}
    if options["interpolation"] == "random":  # is for training
        options["interpolation"] = "bicubic"
    return options


def _exported(config: Config, path: str, asked: dict[str, Any]) -> tuple[Exported, ModelCard]:
    from mindeit.deploy.exported import open_exported

    if config.run.amp_level != "O0":
        raise UserError(f"amp_level is {config.run.amp_level}, but {path} has a precision already (export.py "
                        "--precision); leave it out")
    if path.endswith(".onnx") and config.run.device_target != "CPU":
        raise UserError(f"device_target is {config.run.device_target}, but onnxruntime runs {path} on the CPU; leave "
                        "it out")
    stated = {name: value for name, value in asked.items() if value is not None}
    file = open_exported(path, stated, use_ema=config.model.use_ema, check=not config.model.no_check)
    return file, file.card


def _weights(config: Config) -> str:
    if config.model.ckpt_path:
        return config.model.ckpt_path
    if not config.model.pretrained:
        raise UserError("no weights: give --ckpt_path FILE, or --pretrained True for the official ones")
    from mindeit.convert.pretrained import fetch_pretrained

    return str(fetch_pretrained(config.model.model, config.data.image_resize))


def summary(config: Config) -> Summary:
    """Of the named model, or of the checkpoint's."""
    from mindeit.convert.load import load_for_use
    from mindeit.models.registry import build
    from mindeit.models.summary import summary

    if config.model.ckpt_path:
        return summary(load_for_use(
            config.model.ckpt_path, model=config.model.model, check=not config.model.no_check)[0])
    if not config.model.model:
        raise UserError("--summary needs --model NAME (or a config, or --ckpt_path FILE)")
    classes = 1000 if config.model.num_classes is None else config.model.num_classes
    return summary(build(config.model.model, num_classes=classes, image_size=config.data.image_resize))


def contents(config: Config) -> list[str]:
    """Lines about the checkpoint."""
    from mindeit.training.contents import show

    if not config.model.ckpt_path:
        raise UserError("--show needs --ckpt_path FILE")
    return show(config.model.ckpt_path)


def validation(config: Config, cluster: Cluster) -> tuple[Evaluation, dict[str, Any]]:
    """Evaluate, and what a report says besides: card, class names, images left out, share of time spent waiting."""
    import numpy as np
    from mindspore import nn

    from mindeit.data import WaitTimer, number_as
    from mindeit.deploy.predictor import on_arrays
    from mindeit.runtime import device
    from mindeit.runtime.progress import progress
    from mindeit.training.evaluate import evaluate

    source = evaluation_source(config)
    agreement.check(config, cluster, pictures={config.data.val_split: source}, weights={"the model": _weights(config)})
    model, card = trained_model(config)
    if not card.num_classes:
        raise UserError(f"{config.model.ckpt_path} gives features, and classes are needed; export it without "
                        "--num_classes 0")
    where = config.data.data_dir or config.data.dataset
    number_as(source, card.num_classes, card.class_names, where=where, other="the checkpoint")
    say_notes(source, cluster)
    batches = evaluation_batches(config, source, card, cluster, data_workers(config, cluster))
    if isinstance(model, nn.Cell):
        shape = (config.data.batch_size, 3, card.image_size, card.image_size)
        device.compile_ahead(model, shape, shown=cluster.main)
    timed = WaitTimer(batches)
    shown = progress(timed, len(batches), "validate", images=len(source), shown=cluster.main)
    result = evaluate(on_arrays(model), shown, card.num_classes, cluster)
    bad = np.zeros(len(source), np.float32)  # each rank knows its own
    bad[batches.bad] = 1
    skipped = [source.where(int(index)) for index in np.flatnonzero(cluster.total(bad))]
    return result, {"card": card, "names": source.class_names, "skipped": skipped, "data_wait": timed.share}


def predictor(config: Config) -> Predictor:
    from mindeit.deploy.predictor import Predictor

    return Predictor.of(*trained_model(config))


def evaluation_source(config: Config) -> Source:
    from mindeit.data import open_source

    data = config.data
    return open_source(
        data.dataset, data.data_dir, data.val_split, label_file=data.label_file, train_split=data.train_split
    )


def evaluation_batches(
    config: Config, source: Source, card: ModelCard, cluster: Cluster, workers: Workers
) -> EvaluationBatches:
    from mindeit.data import EvalTransform
    from mindeit.data import evaluation_batches as batches
    from mindeit.runtime.memory import check_fits

    size, count = card.image_size, config.data.batch_size
    check_fits(4 * 3 * size**2 * count, f"batch_size is {count}: a batch of images of {size} pixels")

    transform = EvalTransform(card.image_size, card.crop_pct, card.mean, card.std, card.interpolation)
    return batches(
        source,
        transform,
        config.data.batch_size,
        workers=workers,
        rank=cluster.rank,
        ranks=cluster.ranks,
        skip_bad_images=config.data.skip_bad_images,
    )
