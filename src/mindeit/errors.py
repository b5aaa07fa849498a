"""What a user sees when an input is wrong: one line, exit code 2, no traceback."""
from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Iterable
from typing import Callable


class UserError(Exception):
    """A mistake in a file, an option or a path. The message is one line: what, the value, what is allowed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (nearest: 'deit_tiny_patch16_224')"`` or nothing, to be appended to a message."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (nearest: '{match[0]}')" if match else ""


def front_door(main: Callable[[], int | None]) -> Callable[[], None]:
    """Run a script's ``main``: user errors become one line and exit code 2; bugs still show a traceback."""

    @functools.wraps(main)
    def run() -> None:
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
