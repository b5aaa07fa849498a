"""`report.html` of a run: at its end, by the graph that it compiled, or later, from what lies in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mindeit.config import Config
from mindeit.data import EvalTransform, Source, Workers
from mindeit.errors import UserError
from mindeit.factory import datasets, evaluation
from mindeit.files import atomic
from mindeit.predict.attention_maps import unnormalised
from mindeit.predict.predictor import Predictor
from mindeit.report.page import Mistake, RunReport, render
from mindeit.report.run_record import RunRecord
from mindeit.report.thumbnails import address, overlay
from mindeit.runtime import device, log
from mindeit.runtime.cluster import Cluster
from mindeit.training import run_checkpoints
from mindeit.training.details import Details
from mindeit.training.evaluator import Evaluator
from mindeit.training.metrics import confident_mistakes
from mindeit.training.predictions import Predictions
from mindeit.training.run_folder import REPORT
from mindeit.training.variables import TrainVariables
from mindeit.weights.card import ModelCard
from mindeit.weights.checkpoint import State

MISTAKES, SAMPLES = 8, 24
MOST_LOGITS = 250_000_000  # 1 GB


def at_end(
    config: Config,
    folder: Path,
    cluster: Cluster,
    sources: tuple[Source, Source | None],
    card: ModelCard,
    evaluator: Evaluator | None,
    variables: TrainVariables,
) -> None:
    """All ranks take part in the evaluation of the best weights, rank 0 writes. The run is safe by now, so what goes
    wrong here is a line, not its end."""
    best, weights = _best_weights(folder) if cluster.main else (None, None)
    if evaluator is not None and evaluator.batches.images * card.num_classes > MOST_LOGITS:
        log.say(
            "note: the report shows the training alone, for the logits of all held-out images would fill the memory"
        )
        evaluator = None
    try:
        if evaluator is None:
            found = _report(config, folder, sources[0], card) if cluster.main else None
        else:
            with variables.holding(weights):
                cluster.broadcast(variables.parameters)
                predictions = evaluator.predictions()
                predictor = Predictor.of(evaluator.model, card)
                found = (
                    _report(config, folder, sources[0], card, best, sources[1], predictions, predictor)
                    if predictions is not None
                    else None
                )
        if found is not None:
            memory = {"peak memory": f"{device.peak_memory() / 2**30:.2f} GiB"}
            write([replace(found, facts=memory)], folder / REPORT)
            log.say(f"report: {folder / REPORT}")
    except (UserError, OSError) as error:
        log.say(f"note: no report was written ({error}); mindeit report {folder} tries again")


def _best_weights(folder: Path) -> tuple[Path, State] | tuple[None, None]:
    """None where there are none, or they cannot be read: the other ranks wait for an evaluation all the same."""
    best = best_checkpoint(folder)
    try:
        return (best, run_checkpoints.weights(best)) if best is not None else (None, None)
    except UserError as error:
        log.say(f"note: the report is of the last weights ({error})")
        return None, None


def of_folder(config: Config, cluster: Cluster, folder: Path) -> RunReport:
    """``config``: the one in the folder."""
    best = best_checkpoint(folder)
    if best is None:
        raise UserError(f"{folder} holds no evaluated checkpoint to report on")
    asked = replace(config.model, ckpt_path=str(best), pretrained=False, use_ema=False, model=None, num_classes=None)
    config = replace(config, model=asked)
    found = evaluation.validate(config, cluster, detailed=True, tta=None)
    card, source = found.about["card"], datasets.train_source(config, best)
    predictor = Predictor.of(found.model, card)
    assert found.details is not None  # asked for, and one process is rank 0
    return _report(config, folder, source, card, best, found.source, found.details.predictions, predictor)


def write(reports: Sequence[RunReport], path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text(render(reports), encoding="utf-8", errors="surrogateescape")


def best_checkpoint(folder: Path) -> Path | None:
    """The one of the highest accuracy, by the model's weights or their average."""
    found = run_checkpoints.bests(folder)
    return max(found, key=lambda each: each[3])[1] if found else None


def _report(
    config: Config,
    folder: Path,
    source: Source,
    card: ModelCard,
    best: Path | None = None,
    held_out: Source | None = None,
    predictions: Predictions | None = None,
    predictor: Predictor | None = None,
) -> RunReport:
    details: Details | None = None
    mistakes: list[Mistake] = []
    if predictions is not None and held_out is not None and predictor is not None:
        details = Details(predictions, card.class_names or held_out.class_names, held_out.where)
        mistakes = _mistakes(details, held_out, predictor)
    data = config.data.data_dir or config.data.dataset
    return RunReport(
        record=RunRecord.read(folder),
        model=f"{card.model}, {card.image_size} pixels",
        data=f"{data}: {len(source):,} images to train, {source.num_classes} classes",
        checkpoint=str(best or ""),
        details=details,
        mistakes=mistakes,
        samples=_samples(config, source, card),
    )


def _mistakes(details: Details, source: Source, predictor: Predictor) -> list[Mistake]:
    found, card = details.predictions, predictor.card
    confidence = details.scores.confidence
    rows = confident_mistakes(confidence, found.labels, found.predicted, MISTAKES)
    transform = EvalTransform(card.image_size, card.crop_pct, card.mean, card.std, card.interpolation)
    pixels = [transform(source.read(int(found.indices[row]))) for row in rows]
    seen = _attention(predictor, np.stack(pixels), found.predicted[rows]) if pixels else []
    shown = []
    for place, row in enumerate(rows):
        image = unnormalised(pixels[place], card.mean, card.std)
        shown.append(
            Mistake(
                image=address(image),
                attention=address(overlay(image, seen[place])) if seen else "",
                file=source.where(int(found.indices[row])),
                true=details.names[found.labels[row]],
                predicted=details.names[found.predicted[row]],
                score=float(confidence[row]),
            )
        )
    return shown


def _attention(predictor: Predictor, images: np.ndarray, predicted: np.ndarray) -> list[np.ndarray]:
    """(grid, grid) for each image; [] of models without attention."""
    if not predictor.shows_attention:
        return []
    return [maps.rollout for maps in predictor.attention_maps(images, predicted.tolist())]


def _samples(config: Config, source: Source, card: ModelCard) -> list[str]:
    """The first images of training."""
    few = replace(config, data=replace(config.data, batch_size=min(SAMPLES, config.data.batch_size)))
    images, _ = next(iter(datasets.training_epochs(few, source, card, Cluster(), Workers())(0, 0)))
    if images.dtype == np.uint8:
        return [address(Image.fromarray(pixels.transpose(1, 2, 0))) for pixels in images]
    return [address(unnormalised(pixels, card.mean, card.std)) for pixels in images]
