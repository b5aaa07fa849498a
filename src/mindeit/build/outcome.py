"""What a run leaves behind, and what it goes on from."""
from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from mindeit.errors import UserError

if TYPE_CHECKING:
    from mindeit.checkpoint import ModelCard
    from mindeit.config import Config
    from mindeit.data import Source
    from mindeit.runtime.cluster import Cluster
    from mindeit.training.live import Live
    from mindeit.training.loop import Journey
    from mindeit.training.saved import Shelf
    from mindeit.training.scaling import LossScale


def division(config: Config, source: Source, cluster: Cluster) -> dict[str, int]:
    """What decides which pictures a step of an epoch takes, and what becomes of them."""
    return {
        "ranks": cluster.ranks, "batch_size": config.data.batch_size, "pictures": len(source), "seed": config.run.seed,
        "accumulation": config.optim.gradient_accumulation_steps, "aug_repeats": config.augment.aug_repeats,
    }


def check_resumable(config: Config, path: Path, card: ModelCard, divided: dict[str, int]) -> None:
    from mindeit.training import saved

    same = {"model": card.model, "num_classes": card.num_classes, "opt": config.optim.opt}
    state = saved.load(path)
    saved.check_resumable(state.record, path, same=same, division=divided)
    for label, (now, then) in enumerate(zip(card.class_names or (), state.card.class_names or ())):
        if now != then:
            raise UserError(f"{path}: cannot be resumed, class {label} is '{now}' now, it was saved as '{then}'")


def restore(path: Path, live: Live, scale: LossScale, journey: Journey) -> None:
    from mindeit.training import saved

    state = saved.load(path)
    for target, key in ((scale, "scale"), (journey, "journey")):
        for name, value in state.record[key].items():
            setattr(target, name, value)
    live.restore(state.model, state.ema, state.optimizer, path, updates=journey.step, scale=scale)


def believe_bests(shelf: Shelf, journey: Journey) -> None:
    """What is to be outdone is what the folder holds."""
    from mindeit.training import saved

    for field, name in (("best", saved.BEST), ("best_ema", saved.BEST_EMA)):
        held = shelf.best(name)
        setattr(journey, field, getattr(journey, field) if held is None else held)


def save(
    config: Config, shelf: Shelf, live: Live, card: ModelCard, scale: LossScale, main: bool, divided: dict[str, int],
    made: dict[str, Any], journey: Journey, *, figures: Optional[dict[str, Any]] = None, best: bool = False,
    best_ema: bool = False,
) -> None:
    """``made`` says how the run is made, ``figures`` are those of the epoch that is over and evaluated."""
    from mindeit.training.saved import TrainingState

    if not main:
        return
    record = {
        "epoch": journey.epoch, "batch": journey.batch, "step": journey.step, "opt": config.optim.opt, **divided,
        "config": config.flat(), "journey": asdict(journey), "scale": asdict(scale), "figures": figures,
        "made": made,
    }
    state = TrainingState(live.model(), live.ema(), live.optimizer_state(), card, record)
    shelf.store(state, epoch_done=figures is not None, best=best, best_ema=best_ema)


def recorder(folder: str, cluster: Cluster, epochs: int) -> Callable[[dict[str, Any]], None]:
    """Writes an epoch's figures and draws the curves anew, after the first ``epochs``; only the first rank does.

    Whether it can is told now; nothing is written before the first call.
    """
    from mindeit.training import curves
    from mindeit.training.history import History

    if not cluster.main:
        return lambda record: None
    history, picture = History(folder, epochs=epochs), Path(folder) / "curves.png"
    curves.check(picture)

    def write(record: dict[str, Any]) -> None:
        history.add(record)
        curves.draw(history.records, picture)

    return write
