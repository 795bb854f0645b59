"""Tables and the files that they speak of: by path, by name, with and without suffix, and never the wrong one."""

import numpy as np
import pytest
from PIL import Image

import vesalius as vs
from vesalius.core.errors import UsageError
from vesalius.core.finding import Box
from vesalius.core.progress import Silent
from vesalius.steps._owners import Owners


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, text):
        self.said.append(text)


def films(folder, names, damaged=()):
    rng = np.random.default_rng(5)
    for name in [*names, *damaged]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 44), dtype=np.uint8)).save(path)
        if name in damaged:
            path.write_bytes(path.read_bytes()[:60])
    return folder


def owners(tmp_path, text, **options):
    table = tmp_path / "t.csv"
    table.write_text(text)
    return Owners.of(table, options.get("key"), "patient", options.get("case"), None)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a/1.png", "a/1.png"),
        ("a/1", "a/1.png"),
        ("1.png", "a/1.png"),
        ("1", "a/1.png"),
        ("1.pgm", "1.png"),
        ("data/a/1.png", "a/1.png"),
        ("data\\a\\1.png", "a/1.png"),
        ("vol.nii.gz", "vol.nii.gz#2"),
    ],
)
def test_a_key_is_a_path_or_a_name_with_or_without_suffix(tmp_path, written, name):
    found = owners(tmp_path, f"file,patient\n{written},p7\n")
    assert found.of_scan(name, "", "")[0] == "p7" and not found.unnamed


def test_files_of_one_case_are_one_patients_even_where_only_the_case_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("file,visit\nleft,v1\nright,v1\n")
    found = Owners.of(tmp_path / "t.csv", None, None, "visit", None)
    assert found.of_scan("left.png", "", "") == found.of_scan("right.png", "", "") == ("v1", "v1")
    assert found.of_scan("other.png", "", "") == ("other", "other")
    assert found.of_scan("left.dcm", "header", "study") == ("header", "v1")


def test_a_file_of_the_same_name_elsewhere_is_not_taken_for_one_of_the_table(tmp_path):
    found = owners(tmp_path, "file,patient\na/1.png,p1\n")
    assert found.of_scan("b/1.png", "", "")[0] == "b/1" and found.unnamed == {"b/1.png"}


def test_one_name_of_two_patients_is_refused_because_it_would_mix_them(tmp_path):
    with pytest.raises(UsageError, match="several patients"):
        owners(tmp_path, "file,patient\n1.png,p1\n1.png,p2\n")
    assert owners(tmp_path, "file,patient\n1.png,p1\n1.png,p1\n").of_scan("1.png", "", "")[0] == "p1"


def test_files_that_the_table_does_not_name_are_counted(tmp_path):
    films(tmp_path / "in", ["a/1.png", "a/2.png"])
    (tmp_path / "t.csv").write_text("file,patient\na/1.png,p1\n")
    told = Told()
    vs.ingest(
        tmp_path / "in", into=tmp_path / "study", table=tmp_path / "t.csv", patient="patient", pixels="keep",
        progress=told,
    )  # fmt: skip
    assert any("1 files are not named in the table" in line for line in told.said)


def test_the_row_of_a_damaged_file_does_not_fall_on_its_namesake(tmp_path):
    films(tmp_path / "in", ["benign/1.png", "benign/2.png"], damaged=["malignant/1.png"])
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    (tmp_path / "t.csv").write_text("file,grade\nbenign/1.png,1\nbenign/2.png,1\nmalignant/1.png,2\n")
    told = Told()
    cohort = vs.label(tmp_path / "study", table=tmp_path / "t.csv", progress=told)
    assert [case.covariates["grade"] for case in cohort] == [1.0, 1.0]
    assert [entry["input"] for entry in told.aside] == ["malignant/1.png"]
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("input;class;x;y;width;height\nbenign/1.png;mass;9;7;4;6\nmalignant/1.png;;;;;\n")
    cohort = vs.label(tmp_path / "study", boxes=boxes)
    assert sum(isinstance(finding.place, Box) for case in cohort for finding in case.findings) == 1


def test_paths_that_begin_above_the_ingested_folder_fit_and_those_of_other_folders_do_not(tmp_path):
    films(tmp_path / "in", ["a/1.png", "b/1.png"])
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    (tmp_path / "t.csv").write_text("file,grade\nset/a/1.png,1\nset/b/1.png,2\n")
    cohort = vs.label(tmp_path / "study", table=tmp_path / "t.csv")
    assert sorted(case.covariates["grade"] for case in cohort) == [1.0, 2.0]
    vs.ingest(tmp_path / "in" / "a", into=tmp_path / "half", pixels="keep")
    (tmp_path / "u.csv").write_text("file,grade\na/1.png,1\nb/1.png,2\n")
    with pytest.raises(UsageError, match="No row"):  # either row could mean 1.png
        vs.label(tmp_path / "half", table=tmp_path / "u.csv")


def test_a_bare_name_of_several_patients_is_set_aside_and_rows_that_differ_are_told(tmp_path):
    films(tmp_path / "in", ["a/1.png", "b/1.png", "b/2.png"])
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    (tmp_path / "t.csv").write_text("file,grade\n1.png,1\n2.png,1\n2.png,2\n")
    told = Told()
    cohort = vs.label(tmp_path / "study", table=tmp_path / "t.csv", progress=told)
    assert sorted(case.covariates.get("grade", 0.0) for case in cohort) == [0.0, 0.0, 2.0]
    assert [entry["input"] for entry in told.aside] == ["1.png"]
    assert any("1 cases differ in 'grade'" in line for line in told.said)


def test_a_place_in_a_volume_needs_its_z(tmp_path):
    import nibabel

    for name in ("v", "w"):
        volume = np.random.default_rng(ord(name)).integers(0, 900, (9, 8, 7), dtype=np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii")
    vs.ingest([tmp_path / "v.nii", tmp_path / "w.nii"], into=tmp_path / "study", pixels="keep")
    (tmp_path / "boxes.csv").write_text("input,class,x,y,z,width,height,depth\nv,mass,4,5,,2,2,\nw,mass,4,5,3,2,2,2\n")
    told = Told()
    cohort = vs.label(tmp_path / "study", boxes=tmp_path / "boxes.csv", progress=told)
    assert [entry["input"] for entry in told.aside] == ["v"]
    assert [f.place.centre for case in cohort for f in case.findings] == [(4.0, 5.0, 3.0)]
