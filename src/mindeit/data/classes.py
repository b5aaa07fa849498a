"""The rule that decides whether a data set and a model, or two splits, have the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mindeit.data.images import Source, check_labels
from mindeit.errors import UserError, nearest


def number_as(source: Source, num_classes: int, class_names: Sequence[str] | None, *, where: str, other: str) -> None:
    """Number the classes of ``source`` as ``other`` does, which has ``num_classes`` classes and maybe their names.

    Classes with names are matched by name, so a split may lack some. Without names, the numbers are taken to mean the
    same on both sides. If the classes do not match, a `UserError` says why; it calls the other side ``other``.
    """
    if source.named and class_names:
        place = {name: label for label, name in enumerate(class_names)}
        unknown = next((name for name in source.class_names if name not in place), None)
        if unknown is not None:
            raise UserError(
                f"{where}: class '{unknown}' is none of the {num_classes} classes of {other}"
                f"{nearest(unknown, class_names)}"
            )
        if len(place) == len(class_names):
            source.labels = np.array([place[name] for name in source.class_names], np.int32)[source.labels]
        elif source.class_names != tuple(class_names):
            raise UserError(f"{where} and {other}: a class name stands for several classes, and the lists differ")
    elif source.named and source.num_classes != num_classes:
        raise UserError(f"{where} has {source.num_classes} classes, {other} {num_classes}")
    else:
        check_labels(source.labels, num_classes, where, source.where)
    if class_names or not source.named:
        source.class_names = tuple(class_names or map(str, range(num_classes)))
