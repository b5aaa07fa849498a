"""The checkpoints of a training run: all that is needed to resume it exactly."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, check_writable, existing_file
from mindeit.runtime import log
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.checkpoint import EMA, OPTIMIZER, RECORD_KEY, ModelCard, State

LAST, BEST, BEST_EMA = "last.ckpt", "best.ckpt", "best_ema.ckpt"
_OURS = re.compile(r"(last|best|best_ema|epoch-\d{4,})\.ckpt")
_LEFTOVER = re.compile(r"\.(last|best|best_ema|epoch-\d{4,})-\w{8}\.(ckpt|tmp)")  # names that `files.atomic` gives
_NOTHING = {"step": -1}
_NEEDED = ("epoch", "batch", "step", "opt")


@dataclass(frozen=True)
class RunCheckpoint:
    """Everything between two steps.

    ``record`` holds what is no array, as far as JSON can (tuples come back as lists): epoch (whole ones done), batch
    (those done of the next epoch), step (updates done), opt, and what else the run asks for, such as what an epoch
    consists of. ``use`` is "model" or "ema": the weights a reader of models gets. `save` adds model and num_classes.
    """

    model: State
    ema: State | None
    optimizer: State
    card: ModelCard
    record: Mapping[str, Any]


def save(path: PathLike, state: RunCheckpoint) -> None:
    """One ``.ckpt`` that is a model's checkpoint too; whole, on the disk and with a checksum, or not there."""
    missing = [key for key in _NEEDED if key not in state.record]
    if missing:
        raise ValueError(f"the record lacks {', '.join(missing)}")
    record = {"use": "model", "model": state.card.model, "num_classes": state.card.num_classes, **state.record}
    if record["use"] not in ("model", "ema") or (record["use"] == "ema" and not state.ema):
        raise ValueError(f"no weights to use: {record['use']}")
    text = json.dumps(record, default=lambda scalar: scalar.item())  # NumPy's
    checkpoints.write(
        path,
        {
            RECORD_KEY: np.frombuffer(
                text.encode(), np.uint8
            ),  # first: a truncated file cannot pass for one of weights
            **state.model,
            **{EMA + name: value for name, value in (state.ema or {}).items()},
            **{OPTIMIZER + name: value for name, value in state.optimizer.items()},
        },
        replace(state.card, temperature=None),  # which was fitted to the weights that training began with
    )


def load(path: PathLike, *, verified: bool = False) -> RunCheckpoint:
    """What `save` was given, bit for bit. ``verified``: the checksum was compared a moment ago."""
    path = Path(path)
    record = card = None
    if existing_file(path).suffix == ".ckpt":
        if not verified:
            checkpoints.verify(path)
        record = checkpoints.read_record(path)
        state, card = checkpoints.read_ckpt(path, lambda name: name != RECORD_KEY)
    if record is None or card is None:
        raise UserError(f"{path}: not a training checkpoint; weights alone are where --ckpt_path starts from")
    parts: dict[str, dict[str, np.ndarray]] = {"": {}, EMA: {}, OPTIMIZER: {}}
    for name, value in state.items():
        prefix = next((p for p in (EMA, OPTIMIZER) if name.startswith(p)), "")
        parts[prefix][name[len(prefix) :]] = value
    return RunCheckpoint(parts[""], parts[EMA] or None, parts[OPTIMIZER], card, record)


def weights(path: PathLike) -> State:
    """Those that a reader of models gets."""
    saved = load(path)
    return saved.ema if saved.record["use"] == "ema" and saved.ema is not None else saved.model


def check_resumable(
    record: Mapping[str, Any], where: object, *, same: Mapping[str, Any], division: Mapping[str, Any]
) -> None:
    """Refuse what differs: of ``same`` at any time, of ``division`` (what an epoch consists of) inside an epoch."""
    for what, asked in same.items():
        if asked != record[what]:
            raise UserError(f"{where}: cannot be resumed with {what} {asked}, it was saved with {record[what]}")
    for what, asked in division.items():
        if record["batch"] and asked != record[what]:
            raise UserError(
                f"{where}: cannot be resumed with {what} {asked}, it was saved with {record[what]} inside "
                f"epoch {record['epoch'] + 1} (batch {record['batch']}): what is left of that epoch "
                f"depends on {what}; checkpoints of an epoch's end can be resumed with another"
            )


class CheckpointManager:
    """The checkpoints of a run in ``folder``: last, best, best_ema and one every ``interval`` epochs, ``keep`` of them.

    Each is a file of its own, so that damage to one leaves the others. Made before the run: removes what a killed run
    left half written, completes copies that it did not finish, and replaces a damaged best checkpoint. Only the rank
    that is ``owner`` writes.
    """

    def __init__(self, folder: PathLike, *, interval: int, keep: int, owner: bool = True) -> None:
        self._folder, self._interval, self._keep = Path(folder), interval, keep
        if owner:
            check_writable(self._folder / LAST)
            for path in self._folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            self._finish()
            self._repair()
        self._count = max((_age(record)[0] for _, record in _records(self._folder)), default=0)

    @property
    def last_good(self) -> Path | None:
        return newest_sound(self._folder)

    def store(
        self, state: RunCheckpoint, *, epoch_done: bool = False, best: bool = False, best_ema: bool = False
    ) -> None:
        """Save ``state`` as the last checkpoint, and as best or numbered. If that fails, earlier files stay intact."""
        epoch = state.record["epoch"]
        numbered = epoch_done and epoch % self._interval == 0
        names = {BEST: best, BEST_EMA: best_ema, f"epoch-{epoch:04d}.ckpt": numbered, LAST: True}
        places = [name for name, wanted in names.items() if wanted]
        self._count += 1
        self._place(replace(state, record={**state.record, "count": self._count, "places": places}), places)

    def _place(self, state: RunCheckpoint, places: list[str]) -> None:
        try:
            for use in ("model", "ema"):
                names = [name for name in places if (name == BEST_EMA) == (use == "ema")]
                if names:
                    save(self._folder / names[0], replace(state, record={**state.record, "use": use}))
                for name in names[1:]:
                    _copy(self._folder / names[0], self._folder / name)
            with suppress(OSError):  # not every file system can do it for a folder
                checkpoints.sync(self._folder)
        except (UserError, OSError) as error:
            raise UserError(f"{error}; last good checkpoint: {self.last_good or 'none yet'}") from None
        self._remove_old()

    def _finish(self) -> None:
        """Complete the names of the newest state: otherwise a best one could be lost."""
        records = dict(_records(self._folder))
        newest = max(records.values(), key=_age, default={})
        lacking = [
            name
            for name in newest.get("places", ())
            if _age(records.get(self._folder / name, _NOTHING)) != _age(newest)
        ]
        sound = newest_sound(self._folder) if lacking else None
        if sound is not None and _age(records[sound]) == _age(newest):
            self._place(load(sound), lacking)

    def best(self, name: str) -> float | None:
        """The accuracy of best or best_ema; -1 if it is missing or damaged, None if it was not recorded."""
        if not _is_sound(self._folder / name):
            return -1.0
        return _accuracy(checkpoints.read_record(self._folder / name) or {}, name)

    def _repair(self) -> None:
        """Replace a damaged best checkpoint by the best sound one, which may be an older state."""
        for name, use in ((BEST, "model"), (BEST_EMA, "ema")):
            path, records = self._folder / name, dict(_records(self._folder))
            found = ((other, _accuracy(record, name)) for other, record in records.items() if other != path)
            known = {other: accuracy for other, accuracy in found if accuracy is not None}
            if not known or _is_sound(path):
                continue
            source = next(filter(_is_sound, sorted(known, key=known.__getitem__, reverse=True)), None)
            if source is not None:
                state = load(source)
                save(path, replace(state, record={**state.record, "use": use}))
                _warn(f"{path} was damaged or gone; made anew from {source.name}, accuracy {known[source]:.3f}")

    def _remove_old(self) -> None:
        ages = {path: _age(record) for path, record in _records(self._folder)}
        numbered = ages.keys() - {self._folder / name for name in (LAST, BEST, BEST_EMA)}
        for path in sorted(numbered, key=ages.__getitem__)[: -self._keep]:
            path.unlink(missing_ok=True)


def newest_sound(folder: PathLike) -> Path | None:
    """The newest undamaged checkpoint in ``folder``, with a warning for each damaged one."""
    found = sorted(_records(Path(folder), warn=True), key=lambda found: (_age(found[1]), found[0].name == LAST))
    for path, _ in reversed(found):
        try:
            checkpoints.verify(path)
            return path
        except UserError as error:
            _warn(f"{error}; passed over")
    return None


def bests(folder: PathLike) -> list[tuple[str, Path, int, float]]:
    """(title, path, epoch, accuracy) of the best checkpoints, by the model's weights and by their average."""
    records = dict(_records(Path(folder)))
    found = []
    for title, name in (("best Acc@1", BEST), ("best EMA", BEST_EMA)):
        path = Path(folder) / name
        accuracy = _accuracy(records.get(path, {}), name)
        if accuracy is not None:
            found.append((title, path, records[path]["epoch"], accuracy))
    return found


def named_in(folder: PathLike) -> list[Path]:
    """Files with the name of a run's checkpoint, whatever they contain."""
    return sorted(path for path in Path(folder).glob("*.ckpt") if _OURS.fullmatch(path.name))


def _records(folder: Path, warn: bool = False) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records of readable checkpoints. Only a few bytes of each are read; `verify` checks the rest."""
    for path in named_in(folder):
        try:
            record = checkpoints.read_record(path) or {}
            _age(record)
        except (UserError, TypeError, ValueError, KeyError, AttributeError) as error:
            if warn:
                problem = error if isinstance(error, UserError) else f"{path}: not a training checkpoint"
                _warn(f"{problem}; passed over")
        else:
            yield path, record


def _age(record: Mapping[str, Any]) -> tuple[int, int]:
    """Sorts by the order of storing, so that a run can go back to an earlier state; then by steps."""
    return int(record.get("count", 0)), int(record["step"])


def _accuracy(record: Mapping[str, Any], name: str) -> float | None:
    """The accuracy by which ``name`` is chosen."""
    return (record.get("figures") or {}).get("ema_acc1" if name == BEST_EMA else "acc1")


def _is_sound(path: Path) -> bool:
    try:
        checkpoints.verify(path)
    except UserError:
        return False
    return True


def _warn(problem: str) -> None:
    log.say(f"warning: {problem}")


def _copy(source: Path, path: Path) -> None:
    with atomic(path) as temporary:
        shutil.copyfile(source, temporary)
        checkpoints.sync(temporary)
