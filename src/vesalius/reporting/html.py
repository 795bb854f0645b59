"""The report as one HTML page that needs nothing else: no scripts, no links, pictures and plots inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from vesalius import __version__
from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.core.report import Metric, Report, Score, Table
from vesalius.measures.catalogue import MEASURES, Better, Measure, measure
from vesalius.measures.summary import DIFFERENCE, MODEL, OVERALL, RIVAL
from vesalius.reporting.card_section import card_entries
from vesalius.reporting.pictures import data_uri
from vesalius.reporting.plots import interval_svg, plot_svg

_MOST_ROWS = 400  # of the table of cases; cases.csv has them all


@dataclass(frozen=True)
class Figure:
    """One cell of the table of measures."""

    value: str
    interval: str


@dataclass(frozen=True)
class ClassRow:
    """One class of one measure: the figure of each arm, and all of them drawn."""

    name: str
    figures: tuple[Figure | None, ...]
    drawn: Markup


@dataclass(frozen=True)
class MeasureBlock:
    """One measure with its classes."""

    measure: Measure
    rows: tuple[ClassRow, ...]


def report_page(report: Report) -> str:
    """The whole page. It holds what the report holds and nothing from this machine."""
    arms = [arm for arm in (MODEL, RIVAL, DIFFERENCE) if any(metric.arm == arm for metric in report.metrics)]
    rows, left_out = _case_rows(report.scores)
    return _template().render(
        report=report,
        arms=arms,
        blocks=_blocks(report.metrics, arms),
        plots=[(plot, plot_svg(plot)) for plot in report.plots],
        pictures=[(picture, data_uri(picture)) for picture in report.pictures],
        case_columns=_case_columns(report.scores),
        case_rows=rows,
        case_rows_left_out=left_out,
        card=card_entries(report.card),
        tables=[(table, _rows(table)) for table in report.tables],
        research_only=RESEARCH_ONLY,
        version=__version__,
    )


@cache
def _template() -> Template:
    loader = PackageLoader("vesalius.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")


def _blocks(metrics: Sequence[Metric], arms: Sequence[str]) -> list[MeasureBlock]:
    """The metrics by measure and class, `all` last."""
    blocks = []
    for name in dict.fromkeys(metric.name for metric in metrics):
        own = [metric for metric in metrics if metric.name == name]
        shown = [metric for metric in own if metric.arm != DIFFERENCE]
        low, high = min(m.low for m in shown), max(m.high for m in shown)
        classes = sorted(dict.fromkeys(m.class_name for m in own), key=lambda c: c == OVERALL)
        if len(classes) == 2:  # one class: `all` says the same again
            classes = classes[:1]
        rows = []
        for class_name in classes:
            found = {metric.arm: metric for metric in own if metric.class_name == class_name}
            figures = tuple(_figure(found[arm]) if arm in found else None for arm in arms)
            drawn = interval_svg([found[arm] for arm in (MODEL, RIVAL) if arm in found], low, high)
            rows.append(ClassRow("all classes" if class_name == OVERALL else class_name, figures, drawn))
        blocks.append(MeasureBlock(measure(name), tuple(rows)))
    return blocks


def _figure(metric: Metric) -> Figure:
    kind = measure(metric.name)
    signed = metric.arm == DIFFERENCE or kind.better is Better.ZERO
    value, low, high = (_signed(v, kind.digits, signed) for v in (metric.value, metric.low, metric.high))
    if metric.n == 1:
        return Figure(value, "one patient: no interval")
    return Figure(value, f"{low} to {high}")


def _signed(value: float, digits: int, signed: bool) -> str:
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _rows(table: Table) -> list[list[str]]:
    """A table's cells as text: the numbers of a column share their decimals, three digits for the largest."""
    columns = []
    for column in zip(*table.rows, strict=True):
        numbers = [abs(cell) for cell in column if isinstance(cell, float) and math.isfinite(cell)]
        digits = max(0, 2 - math.floor(math.log10(max(numbers)))) if numbers and max(numbers) > 0 else 0
        columns.append([_table_cell(cell, min(digits, 6)) for cell in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _table_cell(cell: str | float | int, digits: int) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return _signed(cell, digits, signed=False) if math.isfinite(cell) else "–"


def _case_columns(scores: Sequence[Score]) -> list[str]:
    """The table of cases shows the model's measures that have a name for readers, and the first one of the rival."""
    names = _shown(scores)
    columns = [measure(name).heading for name in names]
    if names and any(score.arm == RIVAL for score in scores):
        columns.append(f"{measure(names[0]).heading} of the rival")
    return columns


def _shown(scores: Sequence[Score]) -> list[str]:
    """The model's measures that readers know; cases.csv has the others too."""
    return [name for name in dict.fromkeys(s.name for s in scores if s.arm == MODEL) if name in MEASURES]


def _case_rows(scores: Sequence[Score]) -> tuple[list[tuple[str, str, list[str]]], int]:
    """Case, class and cells, the lowest value of the first measure first; and how many rows are left out."""
    names = _shown(scores)
    rival = any(score.arm == RIVAL for score in scores)
    keys = [(MODEL, name) for name in names] + ([(RIVAL, names[0])] if rival and names else [])
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for score in scores:
        found.setdefault((score.case, score.class_name), {})[score.arm, score.name] = score.value
    order = sorted(found.items(), key=lambda item: (item[1].get(keys[0], math.inf), item[0])) if keys else []
    rows = [
        (case, class_name, [_cell(values.get(key, math.nan), key[1]) for key in keys])
        for (case, class_name), values in order
    ]
    return rows[:_MOST_ROWS], max(0, len(rows) - _MOST_ROWS)


def _cell(value: float, name: str) -> str:
    kind = measure(name)
    return _signed(value, kind.digits, kind.better is Better.ZERO) if math.isfinite(value) else "–"
