"""Progress of long work: a bar on a terminal, otherwise a plain line from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Callable, TypeVar

from tqdm import tqdm

from mindeit.runtime import log

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 30
SECONDS_BETWEEN_REFRESHES = 0.5
WEIGHT_OF_LAST = 0.3  # interval in the rate that is shown


def progress(
    batches: Iterable[Item],
    total: int,
    title: str,
    *,
    images: int,
    shown: bool = True,
    status: Callable[[], str] | None = None,
    every: int | None = None,
) -> Iterator[Item]:
    """Pass ``batches`` on and show, on stderr, the rate in images and the time left.

    images: of all batches. status: gives more to show (loss, learning rate); called only when something is shown.
    every: batches between two plain lines, which appear at least every 30 seconds. A log file gets these lines even
    if the terminal shows a bar.
    """
    if not shown:
        return iter(batches)
    show = _bar if sys.stderr.isatty() else _lines
    return show(batches, _Pace(images, total), title, status, every)


class _Pace:
    """Measures the rate. Later intervals weigh more; the first batch, which may compile, does not count."""

    def __init__(self, images: int, total: int) -> None:
        self.total, self.done = total, 0
        self._images, self._per_batch = images, images / max(total, 1)
        self._seen, self._since = 1, 0.0  # batches and time at the last measurement
        self._seconds: float | None = None  # a batch takes

    def count(self) -> None:
        self.done += 1
        if self.done == 1:
            self._since = time.monotonic()

    def facts(self) -> tuple[str, list[str]]:
        """What is done, and rate and time left as soon as two batches are done."""
        self._measure()
        done = f"{self._per_batch * self.done:.0f}/{self._images} images"
        if self._seconds is None:
            return done, []
        left = _clock((self.total - self.done) * self._seconds)
        return done, [f"{self._per_batch / self._seconds:.1f} images/s", f"{left} left"]

    def _measure(self) -> None:
        if self.done > self._seen:
            now = time.monotonic()
            last = max(now - self._since, 1e-9) / (self.done - self._seen)
            earlier = last if self._seconds is None else self._seconds
            self._seconds = WEIGHT_OF_LAST * last + (1 - WEIGHT_OF_LAST) * earlier
            self._seen, self._since = self.done, now


def _bar(
    batches: Iterable[Item], pace: _Pace, title: str, status: Callable[[], str] | None, every: int | None
) -> Iterator[Item]:
    """``every`` is for the lines in the log file: the bar refreshes twice a second."""
    form = "{desc} |{bar}| {percentage:.0f}%{postfix}"
    with tqdm(total=pace.total, desc=title, bar_format=form, leave=False, dynamic_ncols=True) as bar:
        last, line = -SECONDS_BETWEEN_REFRESHES, _LineInterval(every)
        for batch in batches:
            yield batch
            pace.count()
            due = line.due(pace)
            if due or time.monotonic() - last >= SECONDS_BETWEEN_REFRESHES or pace.done == pace.total:
                extra = _extra(status)  # before the clock is read: it may wait for the device
                done, speed = pace.facts()
                # a narrow terminal cuts the end, so that comes last which the bar shows anyway
                bar.set_postfix_str(", ".join([*extra, *speed, done]), refresh=False)
                bar.n = pace.done
                bar.refresh()
                last = time.monotonic()
                if due:
                    line.log(title, [done, *extra, *speed], screen=False)


def _lines(
    batches: Iterable[Item], pace: _Pace, title: str, status: Callable[[], str] | None, every: int | None
) -> Iterator[Item]:
    line = _LineInterval(every)
    for batch in batches:
        yield batch
        pace.count()
        if line.due(pace):
            extra = _extra(status)  # before the clock is read: it may wait for the device
            done, speed = pace.facts()
            line.log(title, [done, *extra, *speed], screen=True)


class _LineInterval:
    """When the next plain line is due: after ``every`` batches, and after some time at the latest."""

    def __init__(self, every: int | None) -> None:
        self._every, self._last = every, time.monotonic()

    def due(self, pace: _Pace) -> bool:
        late = pace.done > 1 and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES
        by_number = self._every is not None and pace.done % self._every == 0
        return (late or by_number) and pace.done < pace.total  # at the end the caller says what came out

    def log(self, title: str, facts: list[str], *, screen: bool) -> None:
        log.say(f"{title}: {', '.join(facts)}", screen=screen)
        self._last = time.monotonic()


def _extra(status: Callable[[], str] | None) -> list[str]:
    text = status() if status else ""
    return [text] if text else []


def _clock(seconds: float) -> str:
    """3661 -> ``1:01:01``, 61 -> ``1:01``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
