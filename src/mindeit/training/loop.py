"""The loop: epochs of steps, each followed by an evaluation, a record and a checkpoint."""
from __future__ import annotations

import dataclasses
import itertools
import math
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional

import numpy as np

from mindeit.data import EvaluationBatches, TrainingBatches, WaitTimer
from mindeit.errors import UserError
from mindeit.runtime import log
from mindeit.runtime.cluster import Cluster, naming_a_late_rank
from mindeit.runtime.progress import progress
from mindeit.training.evaluate import Evaluation
from mindeit.training.interrupt import Interrupt
from mindeit.training.live import Live
from mindeit.training.scaling import LossScale
from mindeit.training.step import Batch, Pending, Report, Stepper


@dataclasses.dataclass
class Journey:
    """How far a run has come; all of it is saved. ``batch`` counts inside the epoch, ``step`` updates altogether.

    ``trained``: the figures of the epoch that is over, as long as it was neither evaluated nor written down.
    """

    epoch: int = 0  # whole ones done
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # of this epoch's updates
    updates: int = 0
    skipped: int = 0  # unreadable pictures of this epoch
    best: float = -1.0
    best_ema: float = -1.0
    trained: Optional[dict[str, Any]] = None

    def next_epoch(self, figures: dict[str, Any]) -> None:
        train_loss = self.loss_sum / max(self.updates, 1)
        self.epoch, self.batch, self.loss_sum, self.updates, self.skipped = self.epoch + 1, 0, 0.0, 0, 0
        self.trained = {"epoch": self.epoch, "step": self.step, "train_loss": train_loss, **figures}


@dataclasses.dataclass(frozen=True)
class Plan:
    """``lr_at`` takes the epoch and the share of it that is over. ``batches``: of an epoch, on each rank."""

    epochs: int
    batches: int
    lr_at: Callable[[int, float], float]
    val_interval: Optional[int] = 1  # None: never
    log_interval: int = 100
    save_steps: Optional[int] = None  # updates between two saves inside epochs; None: none

    def evaluates_after(self, epoch: int) -> bool:
        """Epochs count from 1."""
        return self.val_interval is not None and (epoch % self.val_interval == 0 or epoch == self.epochs)


class LateReader:
    """Reads how a step ended when the next one is on its way, so that the device never waits for the host.

    ``note`` takes each report in turn, with the learning rate of its step.
    """

    def __init__(self, note: Callable[[Report, float], None]) -> None:
        self._note = note
        self._pending: Optional[tuple[Pending, float]] = None
        self.last: Optional[Report] = None

    def started(self, step: Pending, lr: float) -> None:
        self.read()
        self._pending = step, lr

    def read(self) -> Optional[Report]:
        """The last step's report; waits for its end."""
        if self._pending is not None:
            step, lr = self._pending
            self._pending, self.last = None, step.read()
            self._note(self.last, lr)
        return self.last


@dataclasses.dataclass
class Training:
    """What a run consists of. ``save(journey, **marks)`` writes checkpoints and ``record`` an epoch's figures."""

    plan: Plan
    stepper: Stepper
    live: Live
    scale: LossScale
    journey: Journey
    cluster: Cluster
    batches: Callable[[int, int], TrainingBatches]  # epoch, first batch
    draws: Callable[[int, np.ndarray], np.ndarray]  # epoch, positions
    held_out: Optional[EvaluationBatches]
    evaluate: Callable[..., Evaluation]  # only_batches=N for a part
    save: Callable[..., None]
    record: Callable[[dict[str, Any]], None]
    begins: Callable[[], None]  # everything was found to be right
    ends: Callable[[float], None]  # seconds it took
    last_good: Callable[[], str]

    def run(self, interrupt: Interrupt) -> int:
        """Train to the end, or until a signal asks to stop; the exit code."""
        journey, began = self.journey, time.perf_counter()
        if journey.epoch >= self.plan.epochs and journey.trained is None:
            log.say(f"nothing left to do: {journey.epoch} of {self.plan.epochs} epochs are done (epoch_size)")
            self.ends(0.0)
            return 0
        self.begins()
        if self.plan.val_interval is not None:
            self.evaluate(only_batches=1)  # what is wrong there shows before an epoch was trained
        interrupt.patient = True
        with naming_a_late_rank(self.last_good):
            stopped = self._epochs(interrupt)
        if stopped is None:
            self.ends(time.perf_counter() - began)
        return stopped or 0

    def _epochs(self, interrupt: Interrupt) -> Optional[int]:
        """The exit code of a run that was stopped; None: it is over."""
        journey = self.journey
        while journey.epoch < self.plan.epochs or journey.trained is not None:
            if journey.trained is None:
                started = time.perf_counter()
                figures = self._train(interrupt)
                self._check_weights(figures["lr"])
                received = (interrupt.signal is not None, interrupt.signal == signal.SIGINT)
                stop, by_hand = self.cluster.total(np.array(received, np.float32))
                if stop:
                    self._stop()
                    return 130 if by_hand else 0
                journey.next_epoch({**figures, "seconds": time.perf_counter() - started})
                self.save(journey)
                self.cluster.barrier()  # the others would wait for rank 0 inside the evaluation
            self._close(journey.trained)
        return None

    def _stop(self) -> None:
        self.save(self.journey)
        log.say(f"stopped in epoch {self.journey.epoch + 1} after step {self.journey.step}; "
                  "--resume auto goes on from there")
        self.cluster.barrier()  # a rank that leaves with a code other than 0 ends those that still save

    def _train(self, interrupt: Interrupt) -> dict[str, float]:
        """The rest of the epoch, or less of it after a signal."""
        self.cluster.barrier()  # rank 0 may still save, and the others would wait for it inside a step
        journey, plan = self.journey, self.plan
        batches = self.batches(journey.epoch, journey.batch)
        done = max(0, journey.batch - self.stepper.batches)  # what the last update knew, if none is left
        timed, lr = WaitTimer(batches), plan.lr_at(journey.epoch, done / plan.batches)
        steps = LateReader(self._note)
        pictures = batches.batch_size * self.cluster.ranks
        updates = (plan.batches - journey.batch) // self.stepper.batches
        started, images = time.perf_counter(), 0
        shown = progress(
            self.chunks(journey.epoch, journey.batch, timed, batches.positions),
            updates,
            f"epoch {journey.epoch + 1}/{plan.epochs}",
            images=updates * self.stepper.batches * pictures,
            shown=self.cluster.main,
            every=plan.log_interval,
            status=lambda: f"loss {steps.read().loss:.4f}, lr {lr:.2e}, {timed.share:.0%} waiting for data",
        )
        for chunk in itertools.islice(shown, updates):
            lr = plan.lr_at(journey.epoch, journey.batch / plan.batches)
            steps.started(self.stepper(chunk, lr, interrupt.signal is not None), lr)
            journey.batch += len(chunk)
            images += self.stepper.batches * pictures
            saves = self._saves_here()
            if saves:
                steps.read()
            if steps.last is not None and steps.last.stops:
                break
            if saves:
                self._save_inside(len(batches.skipped), lr)
        steps.read()
        seconds = time.perf_counter() - started
        journey.skipped += self._over_ranks(len(batches.skipped))
        return {"lr": lr, "images_per_second": images / seconds if images else None, "data_wait": timed.share,
                "skipped": journey.skipped}

    def chunks(
        self, epoch: int, first: int, batches: Iterable, positions: Callable[[int], np.ndarray]
    ) -> Iterator[list[Batch]]:
        """As many batches as an update takes, each with its pictures' draws for the drop paths."""
        chunk = []
        for number, (images, targets) in enumerate(batches, first):
            chunk.append((images, targets, self.draws(epoch, positions(number))))
            if len(chunk) == self.stepper.batches:
                yield chunk
                chunk = []

    def _saves_here(self) -> bool:
        """Whether ``save_steps`` ask for a checkpoint here; the end of an epoch has one anyway."""
        if self.plan.save_steps is None or self.journey.batch == self.plan.batches:
            return False
        batches = self.journey.epoch * self.plan.batches + self.journey.batch
        return batches // self.stepper.batches % self.plan.save_steps == 0

    def _save_inside(self, skipped: int, lr: float) -> None:
        """A state to go on from, should this process not see the epoch's end."""
        self._check_weights(lr)
        self.save(dataclasses.replace(self.journey, skipped=self.journey.skipped + self._over_ranks(skipped)))
        self.cluster.barrier()

    def _over_ranks(self, count: int) -> int:
        return int(self.cluster.total(np.array([count]))[0])

    def _note(self, report: Report, lr: float) -> None:
        """Take note of how a step ended."""
        journey = self.journey
        if not math.isfinite(report.loss):
            raise UserError(f"the loss is {report.loss} at {self._place(journey.epoch + 1, journey.step + 1, lr)}")
        journey.step = int(report.updates)
        self.scale.value, self.scale.good_steps = report.scale, int(report.good_steps)
        self.scale.check()
        journey.loss_sum, journey.updates = journey.loss_sum + report.loss, journey.updates + 1

    def _close(self, record: dict[str, Any]) -> None:
        """Evaluate the epoch that was trained, and saved; write it down, and give the checkpoint its further names."""
        journey, started = self.journey, time.perf_counter()
        best, best_ema = journey.best, journey.best_ema
        if self.plan.evaluates_after(journey.epoch):
            result = self._evaluate(record["lr"])
            record.update({"val_loss": result.loss, "acc1": result.top1, f"acc{result.k}": result.topk})
            journey.best = max(best, result.top1)
            if self.live.average is not None:
                with self.live.averaged():
                    average = self._evaluate(record["lr"])
                record.update({"ema_loss": average.loss, "ema_acc1": average.top1, f"ema_acc{average.k}": average.topk})
                journey.best_ema = max(best_ema, average.top1)
        record["seconds"] += time.perf_counter() - started
        self.record(record)
        journey.trained = None
        self.save(journey, figures=record, best=journey.best > best, best_ema=journey.best_ema > best_ema)
        log.say(summary_line(record, self.plan.epochs, journey))

    def _evaluate(self, lr: float) -> Evaluation:
        try:
            return self.evaluate()
        except UserError as error:
            place = self._place(self.journey.epoch, self.journey.step, lr)
            raise UserError(f"{error}; evaluated after {place}") from None

    def _check_weights(self, lr: float) -> None:
        """An update can ruin what its own loss does not show yet; such weights are never saved."""
        if not all(np.isfinite(value).all() for value in self.live.model().values()):
            place = self._place(self.journey.epoch + 1, self.journey.step, lr)
            raise UserError(f"the weights are no longer finite after {place}")

    def _place(self, epoch: int, step: int, lr: float) -> str:
        return (f"step {step} (epoch {epoch}, lr {lr:.3g}, loss scale {self.scale.value:g}); "
                f"last good checkpoint: {self.last_good()}")


def summary_line(record: dict[str, Any], epochs: int, journey: Journey) -> str:
    """One epoch for the reader of a log."""
    parts = [f"epoch {record['epoch']}/{epochs}: loss {record['train_loss']:.4f}"]
    if record.get("images_per_second"):
        parts.append(f"{record['images_per_second']:.1f} images/s, {record['data_wait']:.0%} waiting for data")
    if "acc1" in record:
        parts.append(f"Acc@1 {record['acc1']:.3f} (best {journey.best:.3f})")
    if "ema_acc1" in record:
        parts.append(f"EMA {record['ema_acc1']:.3f} (best {journey.best_ema:.3f})")
    if record.get("skipped"):
        parts.append(f"{record['skipped']} unreadable pictures replaced")
    return ", ".join(parts)
