"""One question per file: what is asked of a cohort, and how an answer is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.protocols import Task
from vesalius.tasks.segmentation import Segmentation

_TASKS = {"segmentation": Segmentation}


def task_named(name: str, cohort: Cohort | None = None, card: Mapping[str, Any] | None = None) -> Task:
    """The task of this name, ready for a cohort and for the model of a card where these are given.

    Raises:
        UsageError: there is no such task, or the model does not answer what the cohort's truth asks.
    """
    if name not in _TASKS:
        raise UsageError(f"There is no task {name!r}.", remedy=f"The tasks are: {', '.join(_TASKS)}.")
    return _TASKS[name].between(cohort, card or {})
