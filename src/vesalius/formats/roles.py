"""Which series is what: an ordered list of rules on headers, editable as TOML, stored in the model's card."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from vesalius.core.errors import UsageError
from vesalius.formats.scan import Attribute, Scan

IGNORE = "ignore"
FALLBACK = "image"

_TEXT = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
_KEYWORDS = ("role", "absent")

DEFAULT_RULES = files("vesalius.formats").joinpath("roles.toml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Rule:
    """A role, and what must be found in which attribute for it.

    Args:
        role: the role, or "ignore"; `{Name}` is replaced by that attribute.
        patterns: attribute to regular expression (text) or to (low, high) with high left out (numbers).
        absent: attributes that must not be there.
    """

    role: str
    patterns: Mapping[str, str | tuple[float, float]]
    absent: tuple[str, ...] = ()

    @cached_property
    def _compiled(self) -> dict[str, re.Pattern[str]]:
        texts = {name: pattern for name, pattern in self.patterns.items() if isinstance(pattern, str)}
        return {name: re.compile(pattern, re.IGNORECASE) for name, pattern in texts.items()}

    def fits(self, attributes: Mapping[str, Attribute]) -> bool:
        """Whether every pattern is found."""
        if any(name in attributes for name in self.absent):
            return False
        return all(self._fits(name, pattern, attributes) for name, pattern in self.patterns.items())

    def _fits(self, name: str, pattern: str | tuple[float, float], attributes: Mapping[str, Attribute]) -> bool:
        worth = attributes.get(name)
        if worth is None:
            return False
        if isinstance(pattern, str):
            return self._compiled[name].search(_as_text(worth)) is not None
        try:
            return pattern[0] <= float(worth) < pattern[1]
        except ValueError:
            return False


@dataclass(frozen=True)
class Rules:
    """Rules in order; the first that fits counts. Nothing fits: "image"."""

    rules: tuple[Rule, ...]

    def role(self, scan: Scan) -> str:
        """What the scan is for the study: a role, "ignore", or "image" where no rule fits."""
        attributes = _attributes(scan)
        for rule in self.rules:
            if rule.fits(attributes):
                return re.sub(r"\{(\w+)\}", lambda name: _as_text(attributes.get(name[1], "")), rule.role)
        return FALLBACK

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs to make these rules again; it stands in the card."""
        return {
            "rules": [
                {"role": rule.role, "absent": list(rule.absent)}
                | {name: p if isinstance(p, str) else list(p) for name, p in rule.patterns.items()}
                for rule in self.rules
            ]
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rules:
        """The rules that `as_json` described.

        Raises:
            UsageError: they are no rules.
        """
        return cls(tuple(_rule(entry, number) for number, entry in enumerate(data["rules"], start=1)))


def load_rules(text: str | None = None) -> Rules:
    """Rules from the text of a `roles.toml`; the built-in ones if left out.

    Raises:
        UsageError: not TOML, or a rule has no role, an unknown kind of pattern, or a broken one.
    """
    try:
        data = tomllib.loads(DEFAULT_RULES if text is None else text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The rules for roles are not TOML: {error}.", remedy="Correct roles.toml.") from error
    unknown = set(data) - {"rule"}
    if unknown or not isinstance(data.get("rule", []), list):
        raise UsageError("The rules for roles hold more than [[rule]] tables.", remedy="Correct roles.toml.")
    return Rules.from_json({"rules": data.get("rule", [])})


def _rule(entry: Mapping[str, Any], number: int) -> Rule:
    def wrong(what: str) -> UsageError:
        return UsageError(f"Rule {number} for roles {what}.", remedy="Correct roles.toml.")

    role = entry.get("role")
    if not isinstance(role, str) or not role.strip():
        raise wrong("has no role")
    if "{Name}" in role:
        raise wrong("puts the name of a file, which may identify somebody, into the role")
    patterns: dict[str, str | tuple[float, float]] = {}
    for name, pattern in entry.items():
        if name in _KEYWORDS:
            continue
        if isinstance(pattern, str):
            try:
                re.compile(pattern)
            except re.error as error:
                raise wrong(f"has a broken pattern for {name}: {error}") from error
            patterns[name] = pattern
        elif _is_pair(pattern):
            patterns[name] = (float(pattern[0]), float(pattern[1]))
        else:
            raise wrong(f"has neither a text nor a pair of numbers for {name}")
    absent = entry.get("absent", [])
    return Rule(role.strip(), patterns, tuple(map(str, [absent] if isinstance(absent, str) else absent)))


def _is_pair(pattern: object) -> bool:
    if not isinstance(pattern, Sequence) or len(pattern) != 2:
        return False
    return all(isinstance(part, int | float) for part in pattern)


def _attributes(scan: Scan) -> dict[str, Attribute]:
    attributes = dict(scan.attributes)
    text = " ".join(str(attributes[name]) for name in _TEXT if name in attributes)
    if text:
        attributes["Text"] = re.sub(r"[_-]", " ", text)  # so that \b finds the words in t1_mprage_sag
    own = PurePosixPath(scan.name).name
    return attributes | {"Modality": scan.modality, "Source": scan.source, "Name": own}


def _as_text(worth: Attribute) -> str:
    return f"{worth:g}" if isinstance(worth, float) else str(worth)
