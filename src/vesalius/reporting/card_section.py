"""The model card as a reader of the report sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TITLES = {
    "name": "Name",
    "task": "Task",
    "classes": "Classes",
    "inputs": "Inputs",
    "roles": "Roles of images",
    "preparation": "Preparation",
    "network": "Network",
    "plan": "Plan",
    "cohort": "Learned from",
    "patients_seen": "Patients seen",
    "seed": "Seed",
    "ignore": "Ignored mask value",
    "sentences": "Notes",
    "data": "Data",
    "versions": "Versions",
    "finder": "Finder",
    "format": "Card format",
}
_ELSEWHERE = frozenset({"metrics", "research_only", "shortcuts"})  # the report shows its own


@dataclass(frozen=True)
class Entry:
    """One line of the card: a heading with text, or with entries below it."""

    heading: str
    text: str = ""
    below: tuple[Entry, ...] = ()


def card_entries(card: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The card's lines, the known ones first and in the order a reader asks for them."""
    order = [key for key in _TITLES if key in card] + [key for key in card if key not in _TITLES]
    return tuple(
        _entry(_TITLES.get(key, _words(key)), card[key])
        for key in order
        if key not in _ELSEWHERE and card[key] not in (None, "", [], {}, ())
    )


def _entry(heading: str, value: Any, depth: int = 0) -> Entry:
    if isinstance(value, Mapping) and depth and not any(isinstance(inner, Mapping) for inner in value.values()):
        return Entry(heading, ", ".join(f"{_words(str(key)).lower()} {_text(inner)}" for key, inner in value.items()))
    if isinstance(value, Mapping):
        below = (_entry(_words(str(key)), inner, depth + 1) for key, inner in value.items())
        return Entry(heading, below=tuple(below))
    if _is_list(value) and any(isinstance(inner, Mapping) for inner in value):
        parts = [
            _entry(str(inner.get("name", number + 1)), {k: v for k, v in inner.items() if k != "name"}, depth + 1)
            for number, inner in enumerate(value)
            if isinstance(inner, Mapping)
        ]
        return Entry(heading, below=tuple(parts))
    return Entry(heading, _text(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if _is_list(value):
        joint = " " if value and all(isinstance(inner, str) and inner.endswith(".") for inner in value) else ", "
        return joint.join(_text(inner) for inner in value)
    return str(value)


def _words(key: str) -> str:
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]
