"""SIGTERM and Ctrl-C end a run between two steps, after its state is saved."""
from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from typing import Optional


class Interrupt(AbstractContextManager):
    """Inside the block, ``signal`` is the first signal received, or None. A second Ctrl-C stops at once."""

    _EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}

    def __init__(self) -> None:
        self.signal: Optional[int] = None

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._note) for number in self._EXIT_CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def exit_code(self) -> int:
        return self._EXIT_CODES.get(self.signal, 0)
