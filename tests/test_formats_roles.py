"""Roles: the built-in rules on names as scanners write them, and rules of one's own."""

from __future__ import annotations

import pytest

from vesalius.core.errors import UsageError
from vesalius.core.grid import Grid
from vesalius.formats.raster import RasterPixels
from vesalius.formats.roles import DEFAULT_RULES, Rules, load_rules
from vesalius.formats.scan import Scan


def _scan(modality: str, source: str = "dicom", **attributes: str | float) -> Scan:
    grid = Grid.from_parts((2, 3, 4))
    return Scan("s", (), source, "", "", "", modality, grid, 1, RasterPixels.__new__(RasterPixels), attributes)


@pytest.mark.parametrize(
    ("modality", "description", "role"),
    [
        ("MR", "AX T1 MPRAGE", "T1"),
        ("MR", "t1_mprage_sag_p2_iso", "T1"),
        ("MR", "Ax T2 FLAIR", "FLAIR"),
        ("MR", "t2_tse_tra", "T2"),
        ("MR", "ep2d_diff_3scan_trace_ADC", "ADC"),
        ("MR", "ep2d_diff_3scan_trace_TRACEW", "DWI"),
        ("MR", "AX T1 +C", "T1c"),
        ("MR", "t1_mprage_tra_KM", "T1c"),
        ("MR", "SAG 3D T1 POST GAD", "T1c"),
        ("MR", "t1_vibe_post", "T1c"),
        ("MR", "localizer", "ignore"),
        ("MR", "3-plane loc", "ignore"),
        ("MR", "SWI_Images", "SWI"),
        ("MR", "mIP_Images(SW)", "ignore"),
        ("MR", "Pha_Images", "ignore"),
        ("MR", "AX PD FS", "PD"),
        ("MR", "PD_TSE", "PD"),
        ("MR", "T2* GRE", "T2star"),
        ("MR", "t2_fl2d_tra_hemo", "T2star"),
        ("MR", "TOF_3D_multi-slab", "TOF"),
        ("MR", "resting_state_bold", "ignore"),
        ("MR", "MPR cor", "ignore"),
        ("CT", "Topogram 0.6", "ignore"),
        ("CT", "Thorax 1.0 B30", "CT"),
        ("CT", "Dose Report", "ignore"),
        ("CT", "MIP axial", "ignore"),
        ("PT", "PET AC", "PET"),
        ("MR", "BRAVO Sag T1", "T1"),
        ("MR", "T1 SE pre contrast", "T1"),
        ("MR", "T1w pre", "T1"),
        ("MR", "T1 without contrast", "T1"),
        ("MR", "t1_space_cor", "T1"),
        ("MR", "t2_space_dark-fluid_sag", "FLAIR"),
        ("MR", "T2 STIR sag", "STIR"),
        ("MR", "sT1W_3D_TFE", "T1"),
        ("MR", "T1W_3D_TFE_C", "T1c"),
        ("MR", "WIP T2W_TSE", "T2"),
        ("MR", "DWI_b1000", "DWI"),
        ("MR", "Accelerated Sagittal MPRAGE", "T1"),
        ("MR", "FLAIR post contrast", "FLAIR"),
        ("MR", "SAG T1 FSE", "T1"),
        ("MR", "MP-RAGE", "T1"),
        ("MR", "ax t1 post fs", "T1c"),
        ("MR", "Sag T2 CUBE", "T2"),
        ("MR", "T1rho", "image"),
        ("CT", "Head Angio", "CTA"),
    ],
)
def test_series_descriptions(modality: str, description: str, role: str) -> None:
    assert load_rules().role(_scan(modality, SeriesDescription=description)) == role


@pytest.mark.parametrize(
    ("attributes", "role"),
    [
        ({"EchoTime": 3.0, "RepetitionTime": 2300.0, "InversionTime": 900.0}, "T1"),
        ({"EchoTime": 90.0, "RepetitionTime": 4000.0}, "T2"),
        ({"EchoTime": 120.0, "RepetitionTime": 9000.0, "InversionTime": 2500.0}, "FLAIR"),
        ({"EchoTime": 12.0, "RepetitionTime": 3000.0}, "PD"),
        ({"SeriesDescription": "T1 tse", "ContrastBolusAgent": "Gadovist"}, "T1c"),
        ({"DiffusionBValue": 1000.0}, "DWI"),
        ({"ImageType": "DERIVED\\PRIMARY\\DIFFUSION\\ADC\\ND"}, "ADC"),
        ({"ImageType": "ORIGINAL\\PRIMARY\\P\\ND", "SeriesDescription": "gre"}, "ignore"),
        ({"SecondaryCapture": "yes", "SeriesDescription": "T1"}, "ignore"),
        ({}, "image"),
    ],
)
def test_headers_without_words(attributes: dict, role: str) -> None:
    assert load_rules().role(_scan("MR", **attributes)) == role


def test_plane_images_and_files() -> None:
    rules = load_rules()
    views = [("MLO", "L"), ("MLO", "R"), ("CC", "L"), ("CC", "R")]
    found = [rules.role(_scan("MG", ViewPosition=view, ImageLaterality=side)) for view, side in views]
    assert found == ["MLO-L", "MLO-R", "CC-L", "CC-R"]
    assert [rules.role(_scan(modality)) for modality in ("US", "CR", "DX", "CT", "PT", "MG", "")] == [
        "US", "CR", "DX", "CT", "PET", "MG", "image",
    ]  # fmt: skip
    assert rules.role(_scan("", "nifti", Volume=2.0, Volumes=4.0)) == "image-2"
    assert rules.role(_scan("", "nifti")) == "image"


def test_rules_survive_the_card() -> None:
    rules = load_rules(DEFAULT_RULES)
    assert Rules.from_json(rules.as_json()) == rules


def test_own_rules_come_in_order_and_may_ask_for_absence() -> None:
    rules = load_rules(
        """
        [[rule]]
        role = "late"
        SeriesDescription = 'dyn.*[5-9]$'
        absent = ["EchoTime"]
        [[rule]]
        role = "early"
        SeriesDescription = 'DYN'
        RepetitionTime = [1, 10]
        """
    )
    assert rules.role(_scan("MR", SeriesDescription="Dyn 7")) == "late"
    assert rules.role(_scan("MR", SeriesDescription="dyn 7", EchoTime=1.0, RepetitionTime=5.0)) == "early"
    assert rules.role(_scan("MR", SeriesDescription="dyn 7", EchoTime=1.0, RepetitionTime=10.0)) == "image"


@pytest.mark.parametrize(
    "text",
    [
        "[[rule]]\nrole='{Name}'",
        "rule = 3",
        "[[rule]]\nX = 'a'",
        "[[rule]]\nrole='a'\nX='('",
        "[[rule]]\nrole='a'\nX=3",
        "no toml",
        "[x]\ny=1",
    ],
)
def test_broken_rules_are_said(text: str) -> None:
    with pytest.raises(UsageError):
        load_rules(text)
