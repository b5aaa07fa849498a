"""What a user sees when an input is wrong: one line, exit code 2, no traceback."""

from __future__ import annotations

import atexit
import difflib
import functools
import gc
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Callable


class UserError(Exception):
    """A mistake in a file, an option or a path. The message is one line: what, the value, what is allowed."""


def nearest(word: str, known: Iterable[str], alike: float = 0.6) -> str:
    """``" (nearest: 'deit_tiny_patch16_224')"`` or nothing, to be appended to a message; the first of equals counts.

    ``alike``: the least share of letters in common, of 1.
    """
    match = _match(_plain(str(word)), {_plain(name): name for name in reversed(list(known))}, alike)
    return f" (nearest: '{match}')" if match else ""


def _match(word: str, known: dict[str, str], alike: float) -> str | None:
    """The same but for case and hyphens, else a longer name, else a shorter one, else the most similar."""
    names = list(reversed(known))
    if word in known:
        return known[word]
    longer = [name for name in names if len(word) > 2 and name.startswith(word)]
    shorter = sorted((name for name in names if len(name) > 3 and word.startswith(name)), key=len)
    similar = difflib.get_close_matches(word, names, n=1, cutoff=alike)
    found = [*longer[:1], *shorter[-1:], *similar]
    return known[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def shorten(text: object, longest: int = 60) -> str:
    """Text as it can stand in a line, whatever it holds."""
    line = str(text).encode("unicode_escape").decode("ascii") if not str(text).isprintable() else str(text)
    return line if len(line) <= longest else line[: longest - 3] + "..."


def run_script(main: Callable[[Sequence[str]], int | None]) -> Callable[..., None]:
    """Run a command's ``main`` on its arguments, by default those of the command line: user errors become one line and
    exit code 2; bugs still show a traceback."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> None:
        _print_any_text()
        atexit.register(gc.freeze)  # else Python looks for garbage among all of MindSpore's objects in the end, for 1 s
        try:
            code = main(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            code = 2
        except BrokenPipeError:  # the reader of our output left: `validate.py ... | head`
            sys.stderr.close()
            code = 141
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr, flush=True)
            code = 130
        sys.exit(code or 0)

    return run


def _print_any_text() -> None:
    """File names need not be UTF-8; Python prints such on stderr with backslashes, and on stdout not at all."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
