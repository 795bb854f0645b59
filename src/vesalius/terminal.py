"""Progress on standard error: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from vesalius.core.progress import Silent

Item = TypeVar("Item")

_EVERY_SECONDS = 0.2
_EVERY_SECONDS_IN_A_LOG = 15.0


class Terminal(Silent):
    """Shows what `core.progress.Progress` is told, and keeps what was set aside and noted."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__()
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._line = ""

    def say(self, sentence: str) -> None:
        """Show a sentence on its own line."""
        self._clear()
        if not self._quiet:
            sys.stderr.write(_harmless(sentence) + "\n")
            sys.stderr.flush()

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """The items, with their number, the rate and the time left."""
        if total is None and isinstance(items, (list, tuple)):
            total = len(items)
        started = shown = time.monotonic()
        every = _EVERY_SECONDS if self._live else _EVERY_SECONDS_IN_A_LOG
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - shown >= every:
                shown = now
                self._show(f"{what}: {_counted(done, total, now - started)}")
        self._clear()

    def set_aside(self, name: str, reason: str, remedy: str) -> None:
        """Keep it, and show it; by its number where this is no terminal, because names of files may name people."""
        super().set_aside(name, reason, remedy)
        shown = " ".join(name.split()) if self._live else f"input {len(self.aside)}"
        self.say(f"  set aside  {shown}: {reason} {remedy}".rstrip())

    def show(self, result: Any) -> None:
        """Show a step's result on standard output."""
        self._clear()
        sys.stdout.write(f"{result}\n")

    def fail(self, message: str) -> None:
        """Show an error, also when quiet."""
        self._clear()
        sys.stderr.write(f"vesalius: {_harmless(message)}\n")

    def finish(self) -> None:
        """Leave a clean line behind."""
        self._clear()

    def _show(self, line: str) -> None:
        if self._quiet:
            return
        if self._live:
            sys.stderr.write("\r" + line.ljust(len(self._line)))
            self._line = line
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._line:
            sys.stderr.write("\r" + " " * len(self._line) + "\r")
            sys.stderr.flush()
            self._line = ""


def _harmless(text: str) -> str:
    """The text without control characters, which could rewrite what a terminal shows."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _counted(done: int, total: int | None, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    pace = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
    if total is None:
        return f"{done}, {pace}"
    left = (total - done) / rate
    return f"{done} of {total}, {pace}, {int(left // 60)}:{int(left % 60):02d} left"
