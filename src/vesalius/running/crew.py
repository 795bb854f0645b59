"""Work that several processes of this machine do side by side, one piece of which may crash without harm.

On Linux the processes are forks of this one, so that they start at once and a script needs no `__main__` guard;
elsewhere, and with one worker, the work is done in this process when its result is asked for.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

_LOOKS_EVERY = 0.5  # seconds


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Crashed(Exception):
    """The process that did a piece of work ended in the middle of it, twice."""


class Crew(Generic[Result]):
    """Processes that all do one kind of work.

    Args:
        work: a function of a module; its arguments and results travel between processes.
        setup: called with `given` once in each process, to keep what all pieces of work share.
        workers: how many processes; 1 works in this one.
    """

    def __init__(self, work: Callable[..., Result], setup: Callable[..., None], given: tuple[Any, ...], workers: int):
        self._work, self._setup, self._given = work, setup, given
        self.workers = workers if sys.platform == "linux" else 1
        self._pool: ProcessPoolExecutor | None = None
        if self.workers == 1:
            setup(*given)

    def start(self, *arguments: Any) -> Callable[[], Result]:
        """Begin a piece of work; the function that is returned waits for its result, or raises as the work did.

        Raises:
            Crashed: from the returned function; the other pieces go on.
        """
        if self.workers == 1:
            return lambda: self._work(*arguments)
        future = self._submit(arguments)
        return lambda: self._result(future, arguments)

    def stop(self) -> None:
        """End the processes; work that has not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _submit(self, arguments: tuple[Any, ...]) -> Future[Result]:
        if self._pool is None:
            self._pool = self._new(self.workers)
        try:
            return self._pool.submit(self._work, *arguments)
        except BrokenProcessPool:
            self._pool = self._new(self.workers)
            return self._pool.submit(self._work, *arguments)

    def _new(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            workers, mp_context=get_context("fork"), initializer=_begin, initargs=(self._setup, self._given)
        )

    def _result(self, future: Future[Result], arguments: tuple[Any, ...]) -> Result:
        """The result; work that was lost because some process crashed is done again, alone."""
        try:
            return future.result()
        except BrokenProcessPool:
            alone = self._new(1)
            try:
                return alone.submit(self._work, *arguments).result()
            except BrokenProcessPool as error:
                raise Crashed from error
            finally:
                alone.shutdown()


def _begin(setup: Callable[..., None], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides what an interruption means
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    setup(*given)


def _leave_with(parent: int) -> None:
    """End this process soon after the first one, also where that was killed and could tell nobody."""
    while os.getppid() == parent:
        time.sleep(_LOOKS_EVERY)
    os._exit(1)
