import csv
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.core.report import Metric, Picture, Plot, Report, Score, Series, Table
from vesalius.reporting.card_section import card_entries
from vesalius.reporting.html import report_page
from vesalius.reporting.plots import plot_svg, ticks, write_plot
from vesalius.reporting.write import cases_csv, report_json, write_report

SCORES = tuple(
    Score(arm, case, case, class_name, name, value)
    for arm, gain in (("model", 0.0), ("rival", -0.1))
    for case, base in (("c2", 0.7), ("c1", 0.9))
    for class_name in ("front", "<b>back")
    for name, value in (("dice", base + gain), ("hd95_mm", math.nan), ("volume_ml", 2.0))
)
REPORT = Report(
    title="net on <study>",
    task="segmentation",
    sentences=("The network wins.", "It is <script>alert(1)</script> small."),
    metrics=tuple(
        Metric(arm, "dice", class_name, value, value - 0.1, value + 0.1, 2)
        for arm, value in (("model", 0.8), ("rival", 0.7), ("difference", 0.1))
        for class_name in ("front", "<b>back", "all")
    ),
    scores=SCORES,
    tables=(Table("A table", ("Class", "Value"), (("front", 0.5), ("back", math.inf))),),
    plots=(
        Plot(
            "A plot",
            "x (ml)",
            "y",
            (Series("model", (1.0, 2.0), (0.5, 0.6)), Series("bias", (1.0, 2.0), (0.5, 0.5), line=True)),
        ),
    ),
    pictures=(Picture("Case c2.", np.zeros((20, 30, 3), np.uint8)),),
    card={
        "name": "net",
        "plan": {"batch": np.int64(4), "lr": 0.002, "nan": float("nan")},
        "classes": [{"name": "front", "value": 1, "code": None}],
    },
    arms={"model": "the network", "rival": "the multi-atlas segmentation"},
    facts={"Cohort": "study"},
)


class Page(HTMLParser):
    """Collects tags, and checks that they are closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else():
    text = report_page(REPORT)
    page = Page(text)
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "a"}
    assert not re.search(r"(https?:)?//[a-z]", text)
    assert "url(" not in text and "@import" not in text
    assert all(attrs["src"].startswith("data:image/png;base64,") for tag, attrs in page.tags if tag == "img")


def test_the_page_can_be_read_by_everybody():
    page = Page(report_page(REPORT))
    assert ("html", {"lang": "en"}) in page.tags
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    plots = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert plots and all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in plots)
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    assert any(tag == "meta" and attrs.get("name") == "viewport" for tag, attrs in page.tags)
    assert "prefers-color-scheme: dark" in report_page(REPORT)


def test_the_page_says_what_it_is_for_and_escapes_what_it_is_given():
    text = report_page(REPORT)
    assert text.count(RESEARCH_ONLY) >= 2
    assert "<b>back" not in text and "&lt;b&gt;back" in text
    assert "<script>" not in text
    assert "The network wins." in text and "net on &lt;study&gt;" in text


def test_an_almost_empty_report_is_a_page_too():
    assert "nothing" in report_page(Report("nothing", "segmentation", ("Nothing was found.",), (), ()))
    assert report_page(Report("t", "segmentation", (), (), ()))


def test_json_has_the_agreed_shape(tmp_path):
    write_report(REPORT, tmp_path / "deep" / "report")
    data = json.loads((tmp_path / "deep" / "report" / "report.json").read_text(), parse_constant=pytest.fail)
    assert data["research_only"] == RESEARCH_ONLY
    assert data["title"] == REPORT.title and data["task"] == "segmentation"
    assert data["metrics"][0] == {
        "arm": "model", "name": "dice", "class": "front", "value": 0.8, "low": pytest.approx(0.7), "high": 0.9, "n": 2,
    }  # fmt: skip
    assert data["card"]["plan"] == {"batch": 4, "lr": 0.002, "nan": None}
    assert data["tables"][0]["rows"] == [["front", 0.5], ["back", None]]


def test_three_files_are_written_and_nothing_else(tmp_path):
    page = write_report(REPORT, tmp_path)
    assert page == tmp_path / "report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.csv", "report.html", "report.json"]
    write_report(REPORT, tmp_path)  # a second time replaces them
    assert str(tmp_path) not in page.read_text()


def test_one_row_per_case_and_class():
    rows = list(csv.DictReader(io.StringIO(cases_csv(SCORES))))
    assert list(rows[0]) == [
        "case", "patient", "class", "dice", "hd95_mm", "volume_ml", "rival_dice", "rival_hd95_mm", "rival_volume_ml",
    ]  # fmt: skip
    assert len(rows) == 4
    assert rows[0]["case"] == "c2" and rows[0]["dice"] == "0.7" and rows[0]["rival_dice"] == "0.6"
    assert rows[0]["hd95_mm"] == ""
    assert cases_csv(()) == "case,patient,class\n"


def test_cells_of_cases_are_sorted_worst_first():
    text = report_page(REPORT)
    every = text[text.index("Every case") :]
    assert every.index(">c2<") < every.index(">c1<")


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.0, 1.0),
        (0.83, 0.97),
        (-3.0, 12.0),
        (5.0, 5.0),
        (0.0, 0.0),
        (1e-6, 2e-6),
        (-0.4, -0.1),
        (-3e-17, 4e-17),
        (1e6, 3e6),
    ],
)
def test_ticks_are_round_and_enclose(low, high):
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high
    assert 3 <= len(found) <= 10
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])


def test_plots_without_values_and_with_many():
    assert "No values" in plot_svg(Plot("t", "x", "y", (Series("model", (), ()),)))
    many = tuple(float(n) for n in range(10000))
    svg = plot_svg(Plot("t", "x", "y", (Series("model", many, many),)))
    assert 1000 < svg.count("<circle") < 2100
    odd = plot_svg(Plot("<t>", "x", "y", (Series("<m>", (1.0, math.nan), (2.0, 3.0)),)))
    assert "<t>" not in odd and "<m>" not in odd


def test_lines_of_arms_guides_and_axes_that_are_set():
    lines = (
        Series("model", (0.0, 0.2, 1.0), (0.0, 0.7, 1.0), line=True),
        Series("", (0.0, 1.0), (0.0, 1.0), line=True),
    )
    svg = plot_svg(Plot("ROC", "1 − specificity", "Sensitivity", lines, limits=(0.0, 1.0, 0.0, 1.0)))
    assert 'class="curve arm-model"' in svg and 'class="guide"' in svg and "3 points for each of model" in svg
    assert svg.count("arm-model") == 2  # the curve and its legend
    froc = Plot("FROC", "rate", "y", (Series("rival", (0.0625, 8.0), (0.1, 0.9), line=True),),
                limits=(1 / 16, 8.0, 0.0, 1.0), doubling=True)  # fmt: skip
    drawn = plot_svg(froc)
    assert all(f">{label}<" in drawn for label in ("1/16", "1/8", "1/4", "1/2", "1", "2", "4", "8"))
    places = [float(x) for x in re.findall(r'class="tick" x1="([\d.]+)"', drawn)]
    assert np.allclose(np.diff(places), np.diff(places)[0], atol=0.2)


def test_values_without_a_name_stay_in_the_table_of_cases():
    scores = (
        Score("model", "c1", "p1", "a", "agreement", 0.4),
        Score("model", "c1", "p1", "a", "candidate_01_score", 0.7),
    )
    text = report_page(Report("t", "detection", (), (), scores))
    assert "Agreement" in text and "candidate_01" not in text
    assert "candidate_01_score" in cases_csv(scores)


def test_the_learning_curve_is_a_png(tmp_path):
    write_plot(
        Plot("Learning", "step", "loss", (Series("one", (0.0, 10.0), (1.0, 0.5), True),)), tmp_path / "curve.png"
    )
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    write_plot(Plot("Learning", "step", "loss", ()), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_card_is_shown_in_a_readers_order():
    entries = card_entries(
        {"metrics": [1], "own_key": True, "versions": {"torch": "2"}, "name": "net", "ignore": None,
         "classes": [{"name": "front", "value": 1, "code": {"value": "5", "scheme": "SCT", "meaning": "Front"}}],
         "sentences": ["One.", "Two."], "inputs": ["T1", "FLAIR"]}
    )  # fmt: skip
    assert [entry.heading for entry in entries] == ["Name", "Classes", "Inputs", "Notes", "Versions", "Own key"]
    assert entries[1].below[0].heading == "front"
    assert entries[1].below[0].below[1].text == "value 5, scheme SCT, meaning Front"
    assert entries[2].text == "T1, FLAIR"
    assert entries[3].text == "One. Two."
    assert entries[5].text == "yes"
    assert report_json(REPORT)["card"]["name"] == "net"
