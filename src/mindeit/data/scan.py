"""Looks at every image of a data set before it is trained on: damage, duplicates, leaks, sizes, balance."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from mindeit.data.batch_memory import Layout
from mindeit.data.duplicates import SIDE, alike_groups, same_groups, thumbnail
from mindeit.data.images import Source
from mindeit.data.scan_report import BadImage, Group, LabelledImage, Report, SmallImage
from mindeit.data.workers import Workers
from mindeit.errors import UserError
from mindeit.runtime.progress import progress

_AT_ONCE = 32  # images of a task


def scan(
    parts: Mapping[str, Source], *, workers: Workers | None = None, min_side: int = 32, shown: bool = True
) -> Report:
    """Read every image of ``parts``, by name: ``{"train": source, "val": held_out}``, or one alone.

    workers: `Threads` or `Processes`; None: in place. min_side: a shorter side makes an image small. shown: whether
    progress is.
    """
    facts = _Facts.empty(sum(map(len, parts.values())))
    tasks = sum(-(-len(source) // _AT_ONCE) for source in parts.values())
    work = _inspect(parts, workers or Workers(), facts)
    for _ in progress(work, tasks, "check", images=len(facts.grey), shown=shown):
        pass
    return _report(parts, facts, min_side)


@dataclasses.dataclass(frozen=True)
class _Facts:
    """Of all images, one part after another. Of one that cannot be read, ``reasons`` says why."""

    sizes: np.ndarray  # int32 (n, 2): width, height
    grey: np.ndarray  # bool (n,)
    digests: np.ndarray  # uint8 (n, 32)
    thumbnails: np.ndarray  # uint8 (n, SIDE * SIDE)
    reasons: dict[int, str]

    @classmethod
    def empty(cls, count: int) -> _Facts:
        arrays: list[np.ndarray] = [np.zeros(shape, kind) for shape, kind in _layout(count)]
        sizes, grey, digests, thumbnails = arrays
        return cls(sizes, grey, digests, thumbnails, {})

    @property
    def readable(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.grey)), list(self.reasons))


def _layout(count: int) -> Layout:
    return (((count, 2), np.int32), ((count,), np.bool_), ((count, 32), np.uint8), ((count, SIDE * SIDE), np.uint8))


class _Inspection:
    """Fills the facts of a source's images; a task is their numbers. Returns why those fail that cannot be read."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def layout(self, numbers: range) -> Layout:
        return _layout(len(numbers))

    def __call__(self, numbers: range, *arrays: np.ndarray) -> dict[int, str]:
        sizes, grey, digests, thumbnails = arrays
        grey.fill(False)  # also of what cannot be read
        reasons = {}
        for slot, number in enumerate(numbers):
            try:
                image = self._source.read(number)
            except UserError as error:
                reasons[number] = str(error).rpartition(f"{self._source.where(number)}: ")[2]
                continue
            pixels = np.asarray(image)
            sizes[slot] = image.size
            grey[slot] = (pixels == pixels[..., :1]).all()
            digests[slot] = np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), np.uint8)
            thumbnails[slot] = thumbnail(image)
        return reasons


def _inspect(parts: Mapping[str, Source], workers: Workers, facts: _Facts) -> Iterator[None]:
    """Fill ``facts``, task by task."""
    start = 0
    for source in parts.values():
        numbers = range(len(source))
        tasks = [numbers[first : first + _AT_ONCE] for first in numbers[::_AT_ONCE]]
        for task, (arrays, reasons) in zip(tasks, workers.map(_Inspection(source), tasks)):
            here = slice(start + task.start, start + task.stop)
            for whole, part in zip((facts.sizes, facts.grey, facts.digests, facts.thumbnails), arrays):
                whole[here] = part
            facts.reasons.update((start + number, reason) for number, reason in reasons.items())
            yield
        start += len(source)


def _report(parts: Mapping[str, Source], facts: _Facts, min_side: int) -> Report:
    whole = _Whole(parts)
    readable = facts.readable
    same = same_groups(facts.digests[readable])
    # of equal pictures one is compared
    distinct, inverse = np.unique(same, return_inverse=True)
    alike = alike_groups(facts.thumbnails[readable[distinct]])
    several = np.bincount(alike, minlength=len(alike))[alike] > 1  # different pictures in a group
    sides = facts.sizes[readable]
    sizes = Counter(map(tuple, sides.tolist()))
    return Report(
        parts={part: len(source) for part, source in parts.items()},
        classes=_class_counts(parts),
        unreadable=tuple(BadImage(whole.image(number).file, reason) for number, reason in facts.reasons.items()),
        same=whole.groups(readable, same, np.bincount(same, minlength=len(same))[same] > 1),
        alike=whole.groups(readable, alike[inverse], several[inverse]),
        small=tuple(
            SmallImage(whole.image(number).file, *facts.sizes[number].tolist())
            for number in readable[sides.min(1, initial=1 << 30) < min_side]
        ),
        min_side=min_side,
        grey=int(facts.grey.sum()),
        sizes=tuple((width, height, count) for (width, height), count in sizes.most_common()),
    )


def _class_counts(parts: Mapping[str, Source]) -> dict[str, dict[str, int]]:
    """Images of each class by part; parts may know different classes."""
    names = dict.fromkeys(name for source in parts.values() for name in source.class_names)
    counts = {name: dict.fromkeys(parts, 0) for name in names}
    for part, source in parts.items():
        for name, count in zip(source.class_names, np.bincount(source.labels, minlength=source.num_classes).tolist()):
            counts[name][part] += count
    return counts


class _Whole:
    """The images of all parts under one numbering."""

    def __init__(self, parts: Mapping[str, Source]) -> None:
        self._names, self._sources = tuple(parts), tuple(parts.values())
        self._starts = np.cumsum([0, *map(len, self._sources)])

    def image(self, number: int) -> LabelledImage:
        part = int(np.searchsorted(self._starts, number, "right")) - 1
        source, index = self._sources[part], int(number - self._starts[part])
        return LabelledImage(source.where(index), source.class_names[source.labels[index]], self._names[part])

    def groups(self, numbers: np.ndarray, group_of: np.ndarray, wanted: np.ndarray) -> tuple[Group, ...]:
        """The images ``numbers`` of each group, where it is ``wanted``."""
        members: dict[int, list[LabelledImage]] = {}
        for number, group in zip(numbers[wanted].tolist(), group_of[wanted].tolist()):
            members.setdefault(group, []).append(self.image(number))
        return tuple(map(Group.of, members.values()))
