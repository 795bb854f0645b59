"""How long work tells how far it is: the command line shows it on standard error, a library is silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """What long work reports to. Nothing that identifies a patient may be said here and written to disk."""

    def say(self, sentence: str) -> None:
        """One sentence in plain words."""
        ...

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """The items, while showing their number, the rate and the time left."""
        ...


class Silent:
    """Reports nothing."""

    def say(self, sentence: str) -> None:
        """Say nothing."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """The items as they are."""
        yield from items
