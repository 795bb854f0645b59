"""How long work tells how far it is: the command line shows it on standard error, a library is silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """What long work reports to. It may name inputs as given: it is never written to a cohort."""

    def say(self, sentence: str) -> None:
        """One sentence in plain words."""
        ...

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """The items, while showing their number, the rate and the time left."""
        ...

    def set_aside(self, name: str, reason: str, remedy: str) -> None:
        """One input that could not be used; the others go on."""
        ...

    def note(self, **figures: Any) -> None:
        """Named results of the step, for the JSON object that scripts read."""
        ...


class Silent:
    """Reports nothing, and keeps what was set aside and noted for whoever asks."""

    def __init__(self) -> None:
        self.aside: list[dict[str, str]] = []
        self.figures: dict[str, Any] = {}

    def say(self, sentence: str) -> None:
        """Say nothing."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """The items as they are."""
        yield from items

    def set_aside(self, name: str, reason: str, remedy: str) -> None:
        """Keep it in `aside`."""
        self.aside.append({"input": name, "reason": reason, "remedy": remedy})

    def note(self, **figures: Any) -> None:
        """Keep them in `figures`."""
        self.figures.update(figures)
