"""How far long work has come: a bar on a terminal, a plain line now and then where there is none."""
from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10


def progress(batches: Iterable[Item], total: int, title: str, *, images: int, shown: bool = True) -> Iterator[Item]:
    """Pass ``batches`` on and show, on stderr, the rate in images and the time left. ``images``: of all batches."""
    if not shown:
        yield from batches
    elif sys.stderr.isatty():
        from tqdm import tqdm

        per_batch = images / max(total, 1)
        form = "{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} images, {rate_fmt}, {remaining} left"
        with tqdm(total=images, desc=title, unit=" images", bar_format=form, leave=False) as bar:
            for batch in batches:
                yield batch
                bar.update(per_batch)
    else:
        yield from _lines(batches, total, title, images)


def _lines(batches: Iterable[Item], total: int, title: str, images: int) -> Iterator[Item]:
    start = last = time.monotonic()
    for done, batch in enumerate(batches, 1):
        yield batch
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last, share = now, done / total
            left = (now - start) * (1 - share) / share
            rate = images * share / (now - start)
            line = f"{title}: {images * share:.0f}/{images} images, {rate:.1f} images/s, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)
