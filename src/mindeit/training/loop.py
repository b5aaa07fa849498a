"""The loop: epochs of steps, each followed by an evaluation, a record and a checkpoint."""

from __future__ import annotations

import dataclasses
import itertools
import math
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import numpy as np

from mindeit.data import TrainingBatches, WaitTimer
from mindeit.errors import UserError
from mindeit.runtime import log
from mindeit.runtime.cluster import Cluster, report_late_rank
from mindeit.runtime.progress import progress
from mindeit.training.evaluate import Evaluation
from mindeit.training.evaluator import Evaluator
from mindeit.training.interrupt import Interrupt
from mindeit.training.loss_scale import LossScale
from mindeit.training.recorder import Recorder
from mindeit.training.step import Batch, Pending, Report, Stepper
from mindeit.training.taught_batches import TaughtBatches
from mindeit.training.train_state import TrainState
from mindeit.training.variables import TrainVariables


@dataclasses.dataclass(frozen=True)
class Plan:
    """``lr_at`` takes the epoch and the part of it that is done, 0..1. ``batches``: of an epoch, on each rank."""

    epochs: int
    batches: int
    lr_at: Callable[[int, float], float]
    val_interval: int | None = 1  # None: never
    log_interval: int = 100
    save_steps: int | None = None  # updates between two saves inside epochs; None: none
    patience: int | None = None  # evaluations in a row without a better accuracy; None: any number

    def evaluates_after(self, epoch: int) -> bool:
        """Epochs count from 1."""
        return self.val_interval is not None and (epoch % self.val_interval == 0 or epoch == self.epochs)

    def ends_with(self, state: TrainState) -> bool:
        """Whether nothing is left to train."""
        return state.epoch >= self.epochs or (self.patience is not None and state.since_best >= self.patience)


class LateReader:
    """Reads the report of a step after the next one was started, so that the device never waits for the host.

    ``note`` is called with each report and the learning rate of its step.
    """

    def __init__(self, note: Callable[[Report, float], None]) -> None:
        self._note = note
        self._pending: tuple[Pending, float] | None = None
        self.last: Report | None = None

    def started(self, step: Pending, lr: float) -> None:
        self.read()
        self._pending = step, lr

    def read(self) -> Report | None:
        """The last step's report; waits for its end."""
        if self._pending is not None:
            step, lr = self._pending
            self._pending, self.last = None, step.read()
            self._note(self.last, lr)
        return self.last


@dataclasses.dataclass
class Training:
    """The parts of a run, and the loop over epochs."""

    plan: Plan
    stepper: Stepper
    variables: TrainVariables
    scale: LossScale
    state: TrainState
    cluster: Cluster
    batches: Callable[[int, int], TrainingBatches | TaughtBatches]  # epoch, first batch
    draws: Callable[[int, np.ndarray], np.ndarray]  # epoch, positions
    evaluator: Evaluator | None  # None: no evaluation
    recorder: Recorder
    finished: Callable[[float], None]  # called with the seconds that it took

    def run(self, interrupt: Interrupt) -> int:
        """Train to the end, or until a signal asks to stop; the exit code."""
        state, began = self.state, time.perf_counter()
        if self.plan.ends_with(state) and state.trained is None:
            why = "epoch_size" if state.epoch >= self.plan.epochs else f"{self._tired()}, patience"
            log.say(f"nothing left to do: {state.epoch} of {self.plan.epochs} epochs are done ({why})")
            self.finished(0.0)
            return 0
        self.recorder.begin()
        if self.evaluator is not None:
            self.evaluator(only_batches=1)  # its mistakes show before an epoch is trained
        interrupt.patient = True
        with report_late_rank(lambda: self.recorder.last_good):
            stopped = self._epochs(interrupt)
        self.recorder.close()
        if stopped is None:
            self.finished(time.perf_counter() - began)
        return stopped or 0

    def _epochs(self, interrupt: Interrupt) -> int | None:
        """The exit code of a run that was stopped; None if it ran to its end."""
        state = self.state
        while state.trained is not None or not self.plan.ends_with(state):
            if state.trained is None:
                started = time.perf_counter()
                figures = self._train(interrupt)
                self._check_weights(figures["lr"])
                received = (interrupt.signal is not None, interrupt.signal == signal.SIGINT)
                stop, by_hand = self.cluster.total(np.array(received, np.float32))
                if stop:
                    self._stop()
                    return 130 if by_hand else 0
                state.next_epoch({**figures, "seconds": time.perf_counter() - started})
                self.recorder.save(state)
                self.cluster.barrier()  # the others would wait for rank 0 inside the evaluation
            self._close()
        if state.epoch < self.plan.epochs:
            log.say(f"early stop after epoch {state.epoch}: {self._tired()}")
        return None

    def _tired(self) -> str:
        return f"{self.state.since_best} evaluations without a better accuracy"

    def _stop(self) -> None:
        self.recorder.save(self.state)
        log.say(
            f"stopped in epoch {self.state.epoch + 1} after step {self.state.step}; --resume auto goes on from there"
        )
        self.cluster.barrier()  # a rank that leaves with a code other than 0 ends those that still save

    def _train(self, interrupt: Interrupt) -> dict[str, Any]:
        """The rest of the epoch, or less of it after a signal."""
        self.cluster.barrier()  # rank 0 may still save, and the others would wait for it inside a step
        state, plan = self.state, self.plan
        batches = self.batches(state.epoch, state.batch)
        done = max(0, state.batch - self.stepper.batches)  # where the last update was, if none is left
        timed, lr = WaitTimer(batches), plan.lr_at(state.epoch, done / plan.batches)
        steps = LateReader(self._note)
        a_step = self.stepper.batches * batches.batch_size * self.cluster.ranks  # images of an update
        updates = (plan.batches - state.batch) // self.stepper.batches
        started, seen = time.perf_counter(), 0

        def status() -> str:
            report = steps.read()
            assert report is not None  # a step was started before
            return f"loss {report.loss:.4f}, lr {lr:.2e}, {timed.share:.0%} waiting for data"

        shown = progress(
            self.chunks(state.epoch, state.batch, timed, batches.positions),
            updates,
            f"epoch {state.epoch + 1}/{plan.epochs}",
            images=updates * a_step,
            shown=self.cluster.main,
            every=plan.log_interval,
            status=status,
        )
        for chunk in itertools.islice(shown, updates):
            lr = plan.lr_at(state.epoch, state.batch / plan.batches)
            steps.started(self.stepper(chunk, lr, interrupt.signal is not None), lr)
            state.batch += len(chunk)
            seen += a_step
            saves = self._saves_here()
            if saves:
                steps.read()
            if steps.last is not None and steps.last.stops:
                break
            if saves:
                self._save_inside(len(batches.skipped), lr)
        steps.read()
        seconds = time.perf_counter() - started
        state.skipped += self._over_ranks(len(batches.skipped))
        return {
            "lr": lr,
            "images_per_second": seen / seconds if seen else None,
            "data_wait": timed.share,
            "skipped": state.skipped,
        }

    def chunks(
        self, epoch: int, first: int, batches: Iterable, positions: Callable[[int], np.ndarray]
    ) -> Iterator[list[Batch]]:
        """Lists of as many batches as an update takes, each batch with its draws for the drop paths."""
        chunk = []
        for number, (images, targets) in enumerate(batches, first):
            chunk.append((images, targets, self.draws(epoch, positions(number))))
            if len(chunk) == self.stepper.batches:
                yield chunk
                chunk = []

    def _saves_here(self) -> bool:
        """Whether ``save_steps`` asks for a checkpoint here; at the end of an epoch one is saved anyway."""
        if self.plan.save_steps is None or self.state.batch == self.plan.batches:
            return False
        batches = self.state.epoch * self.plan.batches + self.state.batch
        return batches // self.stepper.batches % self.plan.save_steps == 0

    def _save_inside(self, skipped: int, lr: float) -> None:
        """Save a checkpoint inside the epoch."""
        self._check_weights(lr)
        self.recorder.save(dataclasses.replace(self.state, skipped=self.state.skipped + self._over_ranks(skipped)))
        self.cluster.barrier()

    def _over_ranks(self, count: int) -> int:
        return int(self.cluster.total(np.array([count]))[0])

    def _note(self, report: Report, lr: float) -> None:
        """Update the state from the report of a step."""
        state = self.state
        if not math.isfinite(report.loss):
            raise UserError(f"the loss is {report.loss} at {self._place(state.epoch + 1, state.step + 1, lr)}")
        state.step = int(report.updates)
        self.scale.value, self.scale.good_steps = report.scale, int(report.good_steps)
        self.scale.check()
        state.loss_sum, state.updates = state.loss_sum + report.loss, state.updates + 1

    def _close(self) -> None:
        """Evaluate the epoch that was trained and saved, record its figures, and save it as best if it is."""
        state, record, started = self.state, self.state.trained, time.perf_counter()
        assert record is not None  # `next_epoch` or the checkpoint has set it
        best, best_ema = state.best, state.best_ema
        if self.plan.evaluates_after(state.epoch):
            result = self._evaluate(record["lr"])
            record.update({"val_loss": result.loss, "acc1": result.top1, f"acc{result.k}": result.topk})
            state.best = max(best, result.top1)
            if self.variables.average is not None:
                with self.variables.averaged():
                    average = self._evaluate(record["lr"])
                record.update({"ema_loss": average.loss, "ema_acc1": average.top1, f"ema_acc{average.k}": average.topk})
                state.best_ema = max(best_ema, average.top1)
            better = state.best > best or state.best_ema > best_ema
            state.since_best = 0 if better else state.since_best + 1
        record["seconds"] += time.perf_counter() - started
        self.recorder.record(record)
        state.trained = None
        self.recorder.save(state, figures=record, best=state.best > best, best_ema=state.best_ema > best_ema)
        log.say(summary_line(record, self.plan.epochs, state))

    def _evaluate(self, lr: float) -> Evaluation:
        assert self.evaluator is not None  # the plan asks for evaluations only if there are images for them
        try:
            return self.evaluator()
        except UserError as error:
            place = self._place(self.state.epoch, self.state.step, lr)
            raise UserError(f"{error}; evaluated after {place}") from None

    def _check_weights(self, lr: float) -> None:
        """An update can make weights not finite before a loss shows it; such weights are never saved."""
        if not all(np.isfinite(value).all() for value in self.variables.model().values()):
            place = self._place(self.state.epoch + 1, self.state.step, lr)
            raise UserError(f"the weights are no longer finite after {place}")

    def _place(self, epoch: int, step: int, lr: float) -> str:
        return (
            f"step {step} (epoch {epoch}, lr {lr:.3g}, loss scale {self.scale.value:g}); "
            f"last good checkpoint: {self.recorder.last_good}"
        )


def summary_line(record: dict[str, Any], epochs: int, state: TrainState) -> str:
    """The log line of an epoch."""
    parts = [f"epoch {record['epoch']}/{epochs}: loss {record['train_loss']:.4f}"]
    if record.get("images_per_second"):
        parts.append(f"{record['images_per_second']:.1f} images/s, {record['data_wait']:.0%} waiting for data")
    if "acc1" in record:
        parts.append(f"Acc@1 {record['acc1']:.3f} (best {state.best:.3f})")
    if "ema_acc1" in record:
        parts.append(f"EMA {record['ema_acc1']:.3f} (best {state.best_ema:.3f})")
    if record.get("skipped"):
        parts.append(f"{record['skipped']} unreadable images replaced")
    return ", ".join(parts)
