"""What a run writes: checkpoints, the figures of each epoch, curves, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mindeit.files import atomic
from mindeit.training import curves, run_checkpoints
from mindeit.training.history import History
from mindeit.training.loss_scale import LossScale
from mindeit.training.run_checkpoints import CheckpointManager, RunCheckpoint
from mindeit.training.run_folder import CURVES
from mindeit.training.train_state import TrainState
from mindeit.training.variables import TrainVariables
from mindeit.weights.card import ModelCard


class Recorder:
    """Writes into the folder of a run; other ranks than the ``owner`` write nothing.

    ``facts`` go into all checkpoints of the run; ``texts`` (by their
    file names) are how it was made, such as ``config.yaml``. Files that cannot be
    written are reported at once; nothing is written then, except that half-written checkpoints are removed.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainState,
        variables: TrainVariables,
        scale: LossScale,
        card: ModelCard,
        *,
        facts: Mapping[str, Any],
        texts: Mapping[str, str],
        interval: int,
        keep: int,
        trackers: Sequence[str],
        owner: bool,
    ) -> None:
        self._folder, self._state, self._variables, self._scale, self._card = folder, state, variables, scale, card
        self._facts, self._texts, self._owner = facts, texts, owner
        self._history: History | None = None
        if owner:
            evaluated = state.epoch - (state.trained is not None)
            self._history = History(folder, trackers=trackers, epochs=evaluated)
            curves.check(folder / CURVES)
        self._manager = CheckpointManager(folder, interval=interval, keep=keep, owner=owner)

    def check_bests(self) -> None:
        """After a restart: take the best accuracies from the checkpoints in the folder."""
        for field, name in (("best", run_checkpoints.BEST), ("best_ema", run_checkpoints.BEST_EMA)):
            held = self._manager.best(name)
            if held is not None:
                setattr(self._state, field, held)

    @property
    def last_good(self) -> str:
        return str(self._manager.last_good or "none yet")

    def begin(self) -> None:
        """Write how the run is made, after all checks."""
        if self._history is not None:
            self._history.begin(self._facts.get("config", {}))
        for name, text in self._texts.items() if self._owner else ():
            with atomic(self._folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="surrogateescape")

    def save(
        self, state: TrainState, *, figures: Mapping[str, Any] | None = None, best: bool = False, best_ema: bool = False
    ) -> None:
        """``figures``: those of an epoch that is over and evaluated."""
        if not self._owner:
            return
        record = {
            **self._facts,
            "epoch": state.epoch,
            "batch": state.batch,
            "step": state.step,
            "train_state": asdict(state),
            "scale": asdict(self._scale),
            "figures": figures,
        }
        variables = self._variables
        checkpoint = RunCheckpoint(variables.model(), variables.ema(), variables.optimizer_state(), self._card, record)
        self._manager.store(checkpoint, epoch_done=figures is not None, best=best, best_ema=best_ema)

    def record(self, figures: Mapping[str, Any]) -> None:
        """Record the figures of an epoch and draw the curves again."""
        if self._history is not None:
            self._history.add(figures)
            curves.draw(self._history.records, self._folder / CURVES)

    def close(self) -> None:
        """At the end of the run, or where it was asked to stop."""
        if self._history is not None:
            self._history.close()
