"""One question per file: what is asked of a cohort, and how an answer is judged."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.protocols import Task

_TASKS = {
    "segmentation": ("vesalius.tasks.segmentation", "Segmentation"),
    "classification": ("vesalius.tasks.classification", "Classification"),
    "clustering": ("vesalius.tasks.clustering", "Clustering"),
    "detection": ("vesalius.tasks.detection", "Detection"),
}


def task_named(name: str, cohort: Cohort | None = None, card: Mapping[str, Any] | None = None) -> Task:
    """The task of this name, ready for a cohort and for the model of a card where these are given.

    Raises:
        UsageError: there is no such task, or the model does not answer what the cohort's truth asks.
    """
    if name not in _TASKS:
        raise UsageError(f"There is no task {name!r}.", remedy=f"The tasks are: {', '.join(_TASKS)}.")
    module, kind = _TASKS[name]
    task: Task = getattr(import_module(module), kind).between(cohort, card or {})
    return task


def question_of(task: Task, cohort: Cohort) -> str:
    """The task with its target, where it has one: what a fitted rival of the cohort is kept by."""
    target = task.card(cohort).get("target")
    return f"{task.name}-{target}" if target else task.name
