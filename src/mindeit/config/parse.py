"""From a command line to a checked configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Callable, Optional

from mindeit.config.options import Key, allowed, convert, keys_of, option
from mindeit.config.rules import ResolvedOptions, check_combinations, check_model, drop_ineffective
from mindeit.config.show import config_text, help_text
from mindeit.config.sources import COMMAND_LINE, DEFAULT, Source, Written, read_command_line, read_files
from mindeit.config.whole import ALL, SECTIONS, Config
from mindeit.errors import UserError, shorten

# values and origins of all keys -> value and origin of some
Derive = Callable[[Mapping[str, Any], Mapping[str, str]], Mapping[str, tuple[Any, str]]]
MOST_SHOWN = 40  # a configuration has fewer mistakes; another kind of file may have thousands


@dataclass(frozen=True)
class GeneralOptions:
    """General"""

    config: Optional[str] = option(
        None, "YAML file or shipped name (deit_b_gpu); the command line overrides it", aliases=("c",)
    )
    print_config: bool = option(False, "print every key, its value and where it came from, then stop")
    help: bool = option(False, "print this text, then stop", aliases=("h",))


def parse(
    argv: Sequence[str],
    *,
    description: str,
    script: type | None = None,
    sections: Sequence[str] = ALL,
    without: Collection[str] = (),
    derive: Derive | None = None,
) -> Config:
    """The configuration of one script: defaults, then the YAML file, then the command line (``sys.argv[1:]``).

    ``sections`` are the groups that the script uses, but for the keys ``without``: they are its options, and only they
    are checked for impossible combinations; a YAML file may hold every key whatever the script. ``script`` is a
    dataclass of the options that this script alone has. ``derive`` chooses values for keys that nobody set. All
    mistakes are raised as one UserError; ``--help`` and ``--print_config`` print and exit.
    """
    schema = [key for section, declaration in SECTIONS.items() for key in keys_of(section, declaration)]
    own = list(keys_of("script", script)) if script else []
    used = own + [key for key in schema if key.section in sections and key.name not in without]
    general = [key for key in keys_of("general", GeneralOptions) if sections or key.name == "help"]
    titles = {name: _title(kind) for name, kind in {**SECTIONS, "general": GeneralOptions, "script": script}.items()}

    command = read_command_line(argv, used + general, unused=[key for key in schema if key not in used])
    asked = _resolve(command.written, general)
    if asked.values["help"]:
        _print_and_exit(_help(description, titles, used + general))
    path = asked.values.get("config")
    source = read_files(path, schema) if path else Source()
    source += command
    shared, scripts = _resolve(source.written, schema), _resolve(source.written, own)
    if derive is not None and not (source.mistakes or shared.mistakes):
        _choose(shared, derive)
    checked = {key.name for key in used if key.section != "script"} - shared.wrong
    ineffective = source.unfollowed + _dropped(shared, schema, checked, source)
    origins, printed = {**shared.origins, **scripts.origins}, asked.values.get("print_config")

    mistakes = source.mistakes + asked.mistakes + shared.mistakes + scripts.mistakes
    mistakes += check_model(shared if "model" in checked else scripts) + check_combinations(shared, checked)
    mistakes += [] if printed else _missing(own, origins)
    if mistakes:
        raise UserError(_all_in_one(mistakes))
    if printed:
        _print_and_exit(config_text({**shared.values, **scripts.values}, origins, titles, used))
    return Config(
        script=script(**scripts.values) if script else None,
        origins=origins,
        notes=tuple(_notes(ineffective, shared)),
        **_groups(schema, shared.values),
    )


def _help(description: str, titles: Mapping[str, str], keys: Iterable[Key]) -> str:
    program = os.path.basename(sys.argv[0])
    about = description.replace(f"python {program.split()[-1]}.py", program)  # of `mindeit train`
    return help_text(program, about, titles, keys)


def _dropped(
    resolved: ResolvedOptions, keys: Iterable[Key], checked: AbstractSet[str], source: Source
) -> list[tuple[str, str]]:
    """What a file of another project sets that another of its settings makes meaningless."""
    lenient = {origin for origin, _ in source.unfollowed if origin != COMMAND_LINE}
    return drop_ineffective(resolved, {key.name: key.default for key in keys}, checked, lenient=lenient)


def _resolve(written: Iterable[Written], keys: Sequence[Key]) -> ResolvedOptions:
    """Convert the written values of these keys; the last value of a key counts, but each must be valid."""
    names = [key.name for key in keys]
    resolved = ResolvedOptions(
        {key.name: key.default for key in keys}, dict.fromkeys(names, DEFAULT), dict.fromkeys(names, 0)
    )
    sections, places = {key.section for key in keys}, {DEFAULT: 0}
    for item in written:
        key, rank = item.key, places.setdefault(item.origin, len(places))
        if key.section not in sections:
            continue
        resolved.origins[key.name], resolved.ranks[key.name] = item.origin, rank
        try:
            resolved.values[key.name] = convert(key, item.text)
        except ValueError:
            shown = shorten(item.text if isinstance(item.text, str) else f"[{', '.join(item.text)}]")
            name = f"--{key.name}" if item.origin == COMMAND_LINE and not key.option.positional else key.name
            resolved.mistakes.append(f"{item.place}: {name} is '{shown}', allowed: {allowed(key)}{_hint(key)}")
            resolved.wrong.add(key.name)
    return resolved


def _choose(resolved: ResolvedOptions, derive: Derive) -> None:
    """Values that follow from others, for the keys that nobody set."""
    try:
        chosen = derive(resolved.values, resolved.origins)
    except UserError as error:
        resolved.mistakes.append(str(error))
        return
    for name, (value, origin) in chosen.items():
        if resolved.origins[name] == DEFAULT:
            resolved.values[name], resolved.origins[name] = value, origin


def _hint(key: Key) -> str:
    return f" ({key.option.hint})" if key.option.hint else ""


def _notes(ineffective: Iterable[tuple[str, str]], resolved: ResolvedOptions) -> Iterator[str]:
    """A line for each source with keys of other projects; ``ineffective`` are origin and name of each."""
    names: dict[str, list[str]] = {}
    for origin, name in ineffective:
        names.setdefault(origin, []).append(name)
    for origin, group in names.items():
        note = f"{origin}: without effect here: {', '.join(group)}"
        if origin != COMMAND_LINE:
            lr = resolved.origins["lr"] == origin and not resolved.values["unscale_lr"]
            note += "; lr counts for 512 images a step (unscale_lr: True takes it as it is)" * lr
            note += "; what the file leaves out is as in DeiT's recipe (--print_config)"
        yield note


def _missing(keys: Iterable[Key], origins: dict[str, str]) -> list[str]:
    return [
        f"{COMMAND_LINE}: {'' if key.option.positional else '--'}{key.name} is missing ({key.option.help})"
        for key in keys
        if key.option.required and origins[key.name] == DEFAULT
    ]


def _groups(keys: Iterable[Key], values: dict[str, Any]) -> dict[str, Any]:
    """The frozen groups of the schema, filled."""
    filled: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key in keys:
        filled[key.section][key.name] = values[key.name]
    return {section: SECTIONS[section](**group) for section, group in filled.items()}


def _all_in_one(mistakes: list[str]) -> str:
    if len(mistakes) == 1:
        return mistakes[0]
    more = [f"and {len(mistakes) - MOST_SHOWN} more"] if len(mistakes) > MOST_SHOWN else []
    return "\n  ".join([f"{len(mistakes)} mistakes", *mistakes[:MOST_SHOWN], *more])


def _title(declaration: type | None) -> str:
    text = (declaration.__doc__ or "").strip() if declaration else ""
    if not text or (declaration and text.startswith(f"{declaration.__name__}(")):  # the text that dataclass makes up
        return "This script"
    return text.splitlines()[0]


def _print_and_exit(text: str) -> None:
    print(text, flush=True)
    sys.exit(0)
