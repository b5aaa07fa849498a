"""SIGTERM and Ctrl-C end a run between two steps, after its state is saved.

MindSpore takes SIGINT over with its first graph and makes a SIGTERM of it, so a handler would never see Ctrl-C.
Therefore both signals are blocked before MindSpore starts threads, which inherit that, and a thread waits for them.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import AbstractContextManager, suppress

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt(AbstractContextManager):
    """Enter it before MindSpore is imported. While ``patient``, ``signal`` is the first signal received, or None.

    Before that a signal ends the process, and so does a second Ctrl-C: at once, even while MindSpore imports, compiles
    or computes, none of which an exception may interrupt. Signals that were ignored before stay ignored.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.patient = False
        self._closing = False

    def __enter__(self) -> Interrupt:
        self._heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        assert self._watcher.ident is not None  # it was started
        signal.pthread_kill(self._watcher.ident, signal.SIGTERM)
        self._watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _watch(self) -> None:
        while not self._closing:
            number = signal.sigwait(_SIGNALS)
            if self._closing or number not in self._heeded:
                continue
            _write_nowhere_if_nobody_reads()
            if self.signal is None and self.patient:
                self.signal = number
            elif number == signal.SIGINT:
                print("interrupted", file=sys.stderr, flush=True)
                os._exit(130)
            elif not self.patient:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))  # for this thread alone, to receive it after all
                os.kill(os.getpid(), number)


def _write_nowhere_if_nobody_reads() -> None:
    """A killed launcher takes the readers of the ranks' outputs along: a line would end a rank before it has saved."""
    for output in (1, 2):
        with suppress(OSError):  # it is closed
            poll = select.poll()
            poll.register(output, 0)
            if any(events & select.POLLERR for _, events in poll.poll(0)):
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), output)
