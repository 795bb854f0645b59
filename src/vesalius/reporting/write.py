"""A report's three files: `report.json` for programs, `cases.csv` for tables, `report.html` for readers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.core.report import Report, Score
from vesalius.measures.summary import MODEL
from vesalius.reporting.html import report_page
from vesalius.store.files import write_json, write_text


def write_report(report: Report, folder: Path) -> Path:
    """Write the three files, each whole or not at all, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report_json(report))
    write_text(folder / "cases.csv", cases_csv(report.scores))
    write_text(folder / "report.html", report_page(report))
    return folder / "report.html"


def report_json(report: Report) -> dict[str, Any]:
    """What `report.json` holds: plain values only, null where a figure is not a finite number."""
    plain = {
        "title": report.title,
        "task": report.task,
        "research_only": RESEARCH_ONLY,
        "sentences": report.sentences,
        "arms": report.arms,
        "facts": report.facts,
        "metrics": [metric.as_json() for metric in report.metrics],
        "tables": [{"title": table.title, "columns": table.columns, "rows": table.rows} for table in report.tables],
        "card": report.card,
    }
    cleaned = _plain(plain)
    assert isinstance(cleaned, dict)
    return cleaned


def cases_csv(scores: Sequence[Score]) -> str:
    """One row per case and class: the model's measures under their names, other arms' as `<arm>_<name>`."""
    columns = list(dict.fromkeys(_column(score) for score in sorted(scores, key=lambda s: s.arm != MODEL)))
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for score in scores:
        rows.setdefault((score.case, score.patient, score.class_name), {})[_column(score)] = score.value
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "patient", "class", *columns])
    for key, values in rows.items():
        writer.writerow([*key, *(_cell(values.get(column, math.nan)) for column in columns)])
    return text.getvalue()


def _column(score: Score) -> str:
    return score.name if score.arm == MODEL else f"{score.arm}_{score.name}"


def _cell(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""


def _plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if hasattr(value, "tolist"):  # numpy numbers and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
