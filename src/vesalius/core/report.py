"""Figures with their uncertainty, and a report as data: `reporting/` draws it without knowing the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vesalius.core.grid import Array


@dataclass(frozen=True)
class Score:
    """One measured value of one arm on one case and class; NaN where it is undefined there."""

    arm: str
    case: str
    patient: str
    class_name: str
    name: str
    value: float


@dataclass(frozen=True)
class Metric:
    """A number with its interval and its n. A bare point estimate cannot be built.

    Args:
        arm: "model", "rival" or "difference" (model minus rival).
        name: the field's standard term in lower case with its unit, such as "dice" or "hd95_mm".
        class_name: the class, or "all".
        value, low, high: estimate and 95 % interval.
        n: patients behind it.

    Raises:
        ValueError: the interval does not contain the value, or n is below 1.
    """

    arm: str
    name: str
    class_name: str
    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        if self.n < 1 or not self.low <= self.value <= self.high:
            raise ValueError(f"{self.name}: a metric needs an interval around its value and n of at least 1")

    def as_json(self) -> dict[str, Any]:
        """The row of `report.json`."""
        return {
            "arm": self.arm, "name": self.name, "class": self.class_name, "value": self.value,
            "low": self.low, "high": self.high, "n": self.n,
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


@dataclass(frozen=True)
class Series:
    """One set of points of a plot."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    line: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot as data.

    Args:
        title, x_title, y_title: in words, the axes' with their units.
        series: what is drawn; a line without a name is a guide, such as the one of chance.
        limits: lowest and highest value along x, then along y; None lets the values decide.
        doubling: the x axis shows powers of two at equal distances (all of `limits` must be above 0).
    """

    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    limits: tuple[float, float, float, float] | None = None
    doubling: bool = False


@dataclass(frozen=True)
class Picture:
    """An RGB picture, (height, width, 3) uint8, with what it shows."""

    caption: str
    pixels: Array


@dataclass(frozen=True)
class Table:
    """A table as data."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int, ...], ...]


@dataclass(frozen=True)
class Report:
    """What an evaluation found, as data.

    Args:
        title: what was measured on what.
        task: name of the task.
        sentences: the findings in plain words, the most important first, including who won.
        metrics: every figure with its interval.
        scores: every value per case and class, from which the metrics were computed.
        tables, plots, pictures: what the task wants shown, in order.
        card: the model's card, the part that a reader of the report needs.
        arms: what each arm is called in running text, such as "the network", by arm.
        facts: what was evaluated on what, when and how, in words by heading.
    """

    title: str
    task: str
    sentences: tuple[str, ...]
    metrics: tuple[Metric, ...]
    scores: tuple[Score, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
