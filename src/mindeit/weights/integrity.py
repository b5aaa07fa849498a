"""Digests that show changes of tensors and files, and checks for values that are not finite."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping

import numpy as np

from mindeit.errors import UserError

DIGEST_KEY = "mindeit.digest"


def digest(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and values: the same in every kind of file, whatever the order there."""
    found = hashlib.sha256()
    for name in sorted(state):
        array = np.asarray(state[name], order="C")
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode("utf-8", "surrogatepass"))
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def refuse_damaged(path: object, what: str) -> None:
    raise UserError(
        f"{path} is damaged or was changed: its {what} not match the digest it carries; --no-check takes it as it is"
    )


def warn_unchecked(path: object) -> None:
    print(
        f"note: {path} is of a time before files carried a digest of their tensors; it cannot be checked",
        file=sys.stderr,
        flush=True,
    )


def refuse_not_finite(state: Mapping[str, np.ndarray], where: object) -> None:
    """A `UserError` names weights that are not finite."""
    wrong = [name for name, array in state.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if wrong:
        shown = f"{', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''}"
        raise UserError(
            f"{where}: {len(wrong)} of {len(state)} tensors hold values that are not finite (NaN or infinity): {shown}"
        )


def check_finite(results: np.ndarray, where: object) -> np.ndarray:
    """``results``, if all of them are numbers."""
    if not np.isfinite(results).all():
        raise UserError(
            f"{where}: the results are not finite (NaN or infinity): the weights are damaged, or the "
            "precision is too low"
        )
    return results
