"""The demo: the whole chain on a few small virtual patients, and what it refuses to overwrite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from vesalius.core.errors import UsageError
from vesalius.core.progress import Silent
from vesalius.steps.demo import Demo, demo
from vesalius.store.bundle import shipped_bundles
from vesalius.store.cohort import open_cohort
from vesalius.virtual import cohort as virtual
from vesalius.virtual.scanner import Scanner, draw_scanner


def _coarse(rng: np.random.Generator) -> Scanner:
    scanner = draw_scanner(rng)
    return replace(scanner, grid=scanner.grid.resampled((5.0, 5.0, 5.0)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, Silent]:
    """A demo on four coarse heads, fitted for seconds."""
    progress = Silent()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virtual, "draw_scanner", _coarse)
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        folder = tmp_path_factory.mktemp("demo") / "demo"
        return demo(folder, minutes=0.4, patients=4, open_report=False, progress=progress), progress


def test_the_chain_ends_in_a_report_with_both_arms(made: tuple[Demo, Silent]) -> None:
    done, _ = made
    assert "<html" in done.report.read_text(encoding="utf-8")
    metrics = json.loads((done.folder / "report" / "report.json").read_text(encoding="utf-8"))["metrics"]
    assert {row["arm"] for row in metrics} == {"model", "rival", "difference"}
    assert {row["class"] for row in metrics} == {"all", "grey matter", "white matter", "CSF"}


def test_the_damaged_series_is_in_quarantine_and_does_not_count_against_the_demo(made: tuple[Demo, Silent]) -> None:
    done, progress = made
    study = open_cohort(done.folder / "study")
    assert len(study) == len(study.patients) == 4
    assert all(case.label_image is not None for case in study)
    assert progress.aside == []


def test_the_new_scan_became_a_seg_that_names_its_patient_and_its_tissues(made: tuple[Demo, Silent]) -> None:
    done, _ = made
    (output,) = done.outputs
    seg = pydicom.dcmread(output)
    source = pydicom.dcmread(next((done.folder / "virtual" / "new_scans").rglob("*.dcm")))
    assert seg.Modality == "SEG"
    assert seg.PatientID == source.PatientID
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["grey matter", "white matter", "CSF"]


def test_no_invented_identifier_reaches_the_cohort(made: tuple[Demo, Silent]) -> None:
    done, _ = made
    headers = [
        pydicom.dcmread(next(folder.rglob("*.dcm")), stop_before_pixels=True)
        for folder in (done.folder / "virtual" / "scans").iterdir()
    ]
    told = {
        str(value).encode()
        for header in headers
        for value in (
            header.PatientID, header.StudyInstanceUID, header.AccessionNumber, header.PatientTelephoneNumbers,
            header.PatientAddress, *str(header.PatientName).split("^"),
        )
    }  # fmt: skip
    texts = [path for path in (done.folder / "study").rglob("*") if path.is_file() and path.suffix != ".b2nd"]
    assert len(texts) > 100
    for path in texts:
        content = path.read_bytes()
        assert not [value for value in told if len(value) > 5 and value in content], path


def test_the_report_of_the_demo_says_what_it_is(made: tuple[Demo, Silent]) -> None:
    done, _ = made
    assert "Not a medical device" in str(done)
    assert str(done.report) in str(done)


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="no demo made"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif("hippocampus" not in shipped_bundles(), reason="no shipped model")
def test_the_shipped_model_outlines_both_hippocampi_of_the_template(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", shipped=True, open_report=False)
    assert len(done.outputs) == 2
    for volumes in done.volumes.values():
        assert all(1.0 < value < 4.0 for value in volumes.values())
    assert done.report.stat().st_size > 10_000
