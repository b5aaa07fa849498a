"""What a user sees when an input is wrong: one line, exit code 2, no traceback."""
from __future__ import annotations

import difflib
import functools
import io
import sys
from collections.abc import Iterable
from typing import Callable


class UserError(Exception):
    """A mistake in a file, an option or a path. The message is one line: what, the value, what is allowed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (nearest: 'deit_tiny_patch16_224')"`` or nothing, to be appended to a message."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (nearest: '{match[0]}')" if match else ""


def shorten(text: object, longest: int = 60) -> str:
    """Text as it can stand in a line, whatever it holds."""
    line = str(text).encode("unicode_escape").decode("ascii") if not str(text).isprintable() else str(text)
    return line if len(line) <= longest else line[: longest - 3] + "..."


def front_door(main: Callable[[], int | None]) -> Callable[[], None]:
    """Run a script's ``main``: user errors become one line and exit code 2; bugs still show a traceback."""

    @functools.wraps(main)
    def run() -> None:
        _print_any_text()
        try:
            code = main()
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
