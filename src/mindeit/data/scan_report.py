"""What a scan of a data set found: as JSON, and as a table for the screen."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mindeit.errors import UserError

_SHOWN = 5  # examples of a finding on the screen; the JSON has all
_SIZES = 5


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    file: str
    class_name: str
    part: str


@dataclasses.dataclass(frozen=True)
class BadImage:
    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class SmallImage:
    file: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Images that are there several times. ``leak``: in several parts; ``contradiction``: in several classes."""

    images: tuple[LabelledImage, ...]
    leak: bool
    contradiction: bool

    @classmethod
    def of(cls, images: Iterable[LabelledImage]) -> Group:
        images = tuple(images)
        parts, classes = {image.part for image in images}, {image.class_name for image in images}
        return cls(images, len(parts) > 1, len(classes) > 1)

    def line(self) -> str:
        names = [image.file for image in self.images[:3]] + ["..."] * (len(self.images) > 3)
        what = [f"in {_listed(image.part for image in self.images)}"] * self.leak
        what += [f"classes {_listed(image.class_name for image in self.images)}"] * self.contradiction
        return " = ".join(names) + (f" ({', '.join(what)})" if what else "")


@dataclasses.dataclass(frozen=True)
class Report:
    """parts: images of each. classes: images of each class by part. same, alike: groups of the same pixels, and of
    images that hardly differ. grey: images without colour. sizes: images of each (width, height), most first."""

    parts: dict[str, int]
    classes: dict[str, dict[str, int]]
    unreadable: tuple[BadImage, ...]
    same: tuple[Group, ...]
    alike: tuple[Group, ...]
    small: tuple[SmallImage, ...]
    min_side: int
    grey: int
    sizes: tuple[tuple[int, int, int], ...]

    @property
    def images(self) -> int:
        return sum(self.parts.values())

    @property
    def leaked(self) -> int:
        """Images outside the first part that another part shows too, by the same pixels or alike."""
        first = next(iter(self.parts))
        leaks = [group for group in (*self.same, *self.alike) if group.leak]
        return len({image.file for group in leaks for image in group.images if image.part != first})

    def as_json(self) -> dict[str, Any]:
        return {"images": self.images, "leaked": self.leaked, **dataclasses.asdict(self)}

    def refuse_unreadable(self) -> None:
        """A `UserError` if there is an image that cannot be read."""
        if self.unreadable:
            first = self.unreadable[0]
            raise UserError(
                f"{len(self.unreadable)} of {self.images} images cannot be read, the first is {first.file}: "
                f"{first.reason}; repair or remove them, or give --skip_bad_images True"
            )

    def lines(self) -> list[str]:
        """A table: what, how much, and examples."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        parts = ", ".join(f"{part} {count:,}" for part, count in self.parts.items())
        yield _row("images", f"{self.images:,}" + f" ({parts})" * (len(self.parts) > 1))
        yield _row("classes", "; ".join(self._class_facts()))
        sizes = [f"{width}x{height} ({count:,})" for width, height, count in self.sizes[:_SIZES]]
        more = [f"{len(self.sizes) - _SIZES:,} more"] if len(self.sizes) > _SIZES else []
        yield _row("sizes", ", ".join(sizes + more))
        yield _row("grey", f"{self.grey:,} without colour")
        yield from _finding("unreadable", [f"{bad.file}: {bad.reason}" for bad in self.unreadable])
        small = [f"{image.file}: {image.width}x{image.height}" for image in self.small]
        yield from _finding("small", small, f"with a side under {self.min_side}")
        yield from _groups("same", self.same)
        yield from _groups("alike", self.alike)
        if len(self.parts) > 1:
            first, *others = self.parts
            yield _row("leak", f"{self.leaked:,} images of {_listed(others)} are in another part too")

    def _class_facts(self) -> Iterator[str]:
        """Balance in the first part, and classes that the others lack."""
        first, *others = self.parts
        counts = Counter({name: parts[first] for name, parts in self.classes.items()})
        (largest, most), (smallest, least) = counts.most_common()[0], counts.most_common()[-1]
        ratio = f", 1 to {most / least:.1f}" if least else ""
        yield f"{len(counts):,}, from '{smallest}' ({least:,}) to '{largest}' ({most:,}){ratio}"
        for part in others:
            missing = [name for name, parts in self.classes.items() if not parts[part]]
            if missing:
                yield f"{part} lacks {_listed(missing)}"


def _row(name: str, text: str) -> str:
    return f"{name:<11} {text}"


def _finding(name: str, items: Sequence[str], what: str = "") -> Iterator[str]:
    yield _row(name, f"{len(items):,} {what}".rstrip())
    yield from (f"  {item}" for item in items[:_SHOWN])
    if len(items) > _SHOWN:
        yield f"  ... and {len(items) - _SHOWN:,} more"


def _groups(name: str, groups: Sequence[Group]) -> Iterator[str]:
    """The worst first."""
    ordered = sorted(groups, key=lambda group: -group.leak - group.contradiction)
    counts = [("across parts", sum(group.leak for group in groups))]
    counts += [("with several classes", sum(group.contradiction for group in groups))]
    what = ["group" if len(groups) == 1 else "groups", *(f"{count:,} {of}" for of, count in counts if count)]
    yield from _finding(name, [group.line() for group in ordered], ", ".join(what))


def _listed(names: Iterable[str]) -> str:
    different = sorted(set(names))
    return ", ".join(different[:_SHOWN]) + (f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else "")
