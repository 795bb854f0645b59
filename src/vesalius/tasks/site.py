"""Where a model would be used: what the figures of triage need to know and no cohort can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vesalius.core.errors import UsageError

SECONDS = 60.0


@dataclass(frozen=True)
class Site:
    """A reading room.

    Args:
        prevalence: share of the cases there that have what is looked for; None where nobody said.
        seconds: reading time of one case.

    Raises:
        UsageError: the prevalence is not between 0 and 1, or the time is not above 0.
    """

    prevalence: float | None = None
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if self.prevalence is not None and not 0.0 < self.prevalence < 1.0:
            raise UsageError(
                "The prevalence is not between 0 and 1.", remedy="Give a share, such as 0.006 for 6 in 1000."
            )
        if not self.seconds > 0.0:
            raise UsageError("The reading time of a case is not above 0.", remedy="Give it in seconds.")

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Site:
        """From the entry `site` that `evaluate` adds to the card it hands to the task."""
        entry = card.get("site") or {}
        return cls(entry.get("prevalence"), float(entry.get("seconds") or SECONDS))
