"""The audit as a Markdown table, and its place in a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_audit.tries import COLUMNS, Outcome, Try
from mindeit.errors import UserError

BEGIN, END = "<!-- device audit: begin -->", "<!-- device audit: end -->"
WARNING = "Compiles and schedules; computes nothing; no device was used."
_TITLES = (
    "configuration",
    "CPU, 8 ranks",
    "GPU",
    "GPU, 2 ranks",
    "Ascend, 1 of 8 ranks",
    "launches",
    "D2D copies",
    "H2D, of images",
    "D2H, bytes",
    "waits",
    "GiB",
    "Ascend kernels",
    "collectives",
)


def markdown(outcomes: dict[Try, Outcome]) -> str:
    """``[1]`` in a cell is the first of the reasons below the table."""
    reasons: list[str] = []
    by_place = {(one.recipe, one.device, one.ranks): outcome for one, outcome in outcomes.items()}
    rows = [_row(recipe, by_place, reasons) for recipe in dict.fromkeys(one.recipe for one in outcomes)]
    lines = [WARNING, "", _line(_TITLES), _line(["---", *["--:"] * (len(_TITLES) - 1)]), *map(_line, rows), ""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines).strip() + "\n"


def _row(recipe: str, by_place: dict[tuple[str, str, int], Outcome], reasons: list[str]) -> list[str]:
    found = [by_place.get((recipe, *place)) for place in COLUMNS]
    states = [_state(outcome, reasons) for outcome in found]
    gpu, ascend = (outcome.numbers if outcome else {} for outcome in (_first_with_numbers(found[1:3]), found[3]))
    ratio = f"{gpu['h2d_bytes'] / gpu['image_bytes_float32']:.2f}" if "image_bytes_float32" in gpu else ""
    memory = f"{gpu['planned_bytes'] / 2**30:.1f}" if "planned_bytes" in gpu else ""
    return [
        f"`{recipe}`",
        *states,
        _count(gpu, "launches"),
        _count(gpu, "d2d_copies"),
        ratio,
        _count(gpu, "d2h_bytes"),
        _count(gpu, "synchronisations"),
        memory,
        _count(ascend, "kernels"),
        _count(ascend, "collectives"),
    ]


def _first_with_numbers(outcomes: list[Any]) -> Any:
    return next((one for one in outcomes if one and one.numbers), None)


def _state(outcome: Any, reasons: list[str]) -> str:
    """``ok``, or the numbers of what is wrong."""
    if outcome is None:
        return ""
    said = [outcome.broke] if outcome.broke else [f"over budget: {text}" for text in outcome.over]
    for reason in said:
        if reason not in reasons:
            reasons.append(reason)
    marks = " ".join(f"[{reasons.index(reason) + 1}]" for reason in said)
    if outcome.broke:
        return f"broke {marks}"
    return f"over {marks}" if said else "ok"


def _count(numbers: dict[str, Any], name: str) -> str:
    return f"{numbers[name]:,}" if name in numbers else ""


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def write(path: Path, text: str) -> None:
    """Replace what stands between the two markers."""
    whole = path.read_text() if path.is_file() else ""
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path}: no place for the table; allowed: a file with the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
