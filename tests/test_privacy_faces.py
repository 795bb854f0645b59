from __future__ import annotations

import numpy as np
import pydicom
import pytest

import dicom_maker
from drawn_head import Drawn, draw_head
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.grid import Grid
from vesalius.formats.find import find_scans
from vesalius.formats.nifti import write_nifti
from vesalius.formats.raster import write_png
from vesalius.privacy import brain_witness, face_files
from vesalius.privacy.brain_witness import Placed, Witness
from vesalius.privacy.face_views import depths, shaded
from vesalius.privacy.faces import Defaced, NoHead, deface_image, kind_of, look_for_face
from vesalius.privacy.hiding import hide
from vesalius.privacy.profile import FaceMode
from vesalius.privacy.site import load_profile
from vesalius.reporting.face_page import FaceAlbum, write_face_page
from vesalius.steps.ingest import ingest

SAGITTAL = np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]])  # i to the back, j to the head, k to the right


def check(head: Drawn, found: Defaced) -> None:
    """Brain as it was to the last voxel; nose, eyes and chin gone; nothing changed but what is said to be."""
    assert isinstance(found, Defaced) and not found.unchanged
    changed = found.array != head.array
    assert not (changed & head.brain).any()
    assert not (found.removed & head.brain).any()
    assert not (changed & ~found.removed).any()
    assert found.array.dtype == head.array.dtype
    assert np.unique(found.array[found.removed]).size == 1
    for part, least in ((head.nose, 0.99), (head.eyes, 0.9), (head.chin, 0.99)):
        if part.any():
            assert found.removed[part].mean() >= least
    assert found.figures["brain_voxels_changed"] == 0
    assert found.figures["surface_removed"] > 0.95
    assert abs(found.figures["relief"]) < 0.5


@pytest.fixture(scope="module")
def plain() -> tuple[Drawn, Defaced]:
    head = draw_head()
    found = deface_image(head.array, head.grid, "MR")
    assert found is not None
    return head, found


def test_face_goes_and_brain_stays(plain):
    head, found = plain
    check(head, found)
    assert found.removed[head.ears].mean() > 0.7
    assert found.array[found.removed].max() < 10


def test_other_contrast_orientation_spacing_and_pose():
    head = draw_head("t2", (2.0, 2.5, 5.0), SAGITTAL, pitch=14.0)
    check(head, look_for_face(head.array, head.grid, "MR"))


def test_ct_and_a_field_of_view_that_ends_below_the_nose():
    head = draw_head("ct", lowest=-80.0)
    found = look_for_face(head.array, head.grid, "")
    check(head, found)
    assert found.array[found.removed].max() < -900


def test_a_stripped_scan_stays_as_it_is():
    head = draw_head(stripped=True)
    found = deface_image(head.array, head.grid, "MR")
    assert found is not None and "nothing but brain" in found.unchanged
    assert found.array is head.array and not found.removed.any()


def test_what_is_no_head():
    grid = Grid.from_parts((40, 40, 40), spacing=(4.0, 4.0, 4.0))
    empty = np.zeros((40, 40, 40), np.int16)
    for array, where, modality in (
        (empty, grid, "PT"),
        (empty, grid, "MR"),
        (empty[:, :, :5], Grid.from_parts((40, 40, 5), spacing=(4.0, 4.0, 4.0)), "MR"),
        (empty, Grid.from_parts((40, 40, 40), placed=False), "MR"),
    ):
        assert deface_image(array, where, modality) is None
        found = look_for_face(array, where, modality)
        assert isinstance(found, NoHead) and found.reason


def test_a_box_is_no_face():
    array = np.zeros((50, 50, 50), np.int16)
    array[12:38, 20:30, :] = 200
    array += np.random.default_rng(0).integers(0, 9, array.shape).astype(np.int16)
    try:
        found = look_for_face(array, Grid.from_parts(array.shape, spacing=(4.0, 4.0, 4.0)), "MR")
    except UnusableInput:
        return
    assert isinstance(found, NoHead)


def test_a_witness_that_contradicts_the_outline_stops_the_cut(monkeypatch, plain):
    head, _ = plain
    everywhere = Placed(np.ones(head.grid.shape, np.float32), head.grid.affine)
    monkeypatch.setattr(brain_witness, "find_brain", lambda scan, kind: Witness(everywhere, 1.0, 1.0))
    monkeypatch.setattr("vesalius.privacy.faces._is_stripped", lambda *given: False)
    with pytest.raises(UnusableInput, match="contradict"):
        look_for_face(head.array, head.grid, "MR")


def test_no_witness_no_cut(monkeypatch, plain):
    head, _ = plain
    monkeypatch.setattr(brain_witness, "find_brain", lambda scan, kind: None)
    with pytest.raises(UnusableInput, match="brain was not found"):
        look_for_face(head.array, head.grid, "MR")


def test_ct_is_known_by_its_air():
    assert kind_of(np.full((8, 8, 8), -1000), "") == "CT"
    assert kind_of(np.zeros((8, 8, 8)), "") == "MR"
    assert kind_of(np.zeros((8, 8, 8)), "US") == ""


def test_the_picture_afterwards_has_no_nose(plain, tmp_path):
    from vesalius.imaging.registration import Volume

    head, found = plain
    outline = Volume((head.array > 60).astype(np.float32), head.grid)
    before, after = (depths(outline, removed, head.grid, found.pose) for removed in (None, found.removed))
    assert np.nanmin(before) < np.nanmin(after) - 10
    write_png(tmp_path / "after.png", shaded(after))


def series(tmp_path, head: Drawn):
    spacing = head.grid.spacing
    slices = dicom_maker.volume_slices(
        head.array.astype(np.uint16), spacing=spacing, origin=head.grid.origin, sop_class=dicom_maker.MR, modality="MR"
    )
    return dicom_maker.write(tmp_path, slices)


def test_a_series_loses_its_face_and_says_so(tmp_path, monkeypatch, plain):
    head, found = plain
    files = series(tmp_path / "s", head)
    before = [pydicom.dcmread(file) for file in files]
    monkeypatch.setattr(face_files, "_look", lambda array, scan: found)
    cleaned = face_files.remove_from_series(tmp_path / "s")
    assert np.array_equal(cleaned.removed[0], found.removed) and cleaned.told == {0: face_files.REMOVED}
    (scan,) = find_scans(tmp_path / "s")
    assert scan.grid.matches(head.grid)
    array = scan.pixels.read()[0]
    assert np.array_equal(array[~found.removed], head.array[~found.removed])
    assert array[found.removed].max() < 10
    for old, file in zip(before, files, strict=True):
        new = pydicom.dcmread(file)
        lost = "RecognizableVisualFeatures" in new
        assert lost == (old.PixelData != new.PixelData) or lost
        if lost:
            assert new.RecognizableVisualFeatures == "NO"
            codes = [item.CodeValue for item in new.DeidentificationMethodCodeSequence]
            assert codes.count("113102") == 1
            assert new.SOPInstanceUID == old.SOPInstanceUID and new.get("ImageType") == old.get("ImageType")
    assert not list((tmp_path / "s").glob(".*"))


def test_all_volumes_of_a_series_lose_the_face_that_one_of_them_shows(tmp_path, monkeypatch, plain):
    head, found = plain
    slices = []
    for echo in (1, 2, 3):
        one = dicom_maker.volume_slices(
            (head.array + echo).astype(np.uint16), spacing=head.grid.spacing, origin=head.grid.origin,
            sop_class=dicom_maker.MR, modality="MR",
        )  # fmt: skip
        for dataset in one:
            dataset.EchoTime, dataset.EchoNumbers = str(10 * echo), str(echo)
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3.4", "1.2.3"
            dataset.FrameOfReferenceUID, dataset.PatientID = "1.2.3.5", "P"
        slices += one
    dicom_maker.write(tmp_path / "s", slices)
    before = [scan.pixels.read()[0] for scan in find_scans(tmp_path / "s")]
    assert len(before) == 3
    looks = []

    def look(array, scan):
        looks.append(1)
        if len(looks) == 1:
            raise UnusableInput("A doubt about the brain.")
        return NoHead("Nothing.") if len(looks) == 2 else found

    monkeypatch.setattr(face_files, "_look", look)
    told = []
    cleaned = face_files.remove_from_series(tmp_path / "s", lambda array, grid, face: told.append(face))
    assert set(cleaned.removed) == {0, 1, 2} and set(cleaned.told.values()) == {face_files.REMOVED}
    assert told == [found]
    for old, scan in zip(before, find_scans(tmp_path / "s"), strict=True):
        new = scan.pixels.read()[0]
        assert np.array_equal(new[~found.removed], old[~found.removed]) and new[head.nose].max() < 20
    looks.clear()
    monkeypatch.setattr(face_files, "_look", lambda array, scan: look(array, scan) if len(looks) < 2 else NoHead("No."))
    with pytest.raises(UnusableInput, match="doubt"):
        face_files.remove_from_series(tmp_path / "s")


def test_a_plain_file_loses_its_face(tmp_path, monkeypatch, plain):
    head, found = plain
    write_nifti(tmp_path / "a.nii.gz", head.array, head.grid)
    monkeypatch.setattr(face_files, "_look", lambda array, scan: found)
    cleaned = face_files.remove_from_image(tmp_path / "a.nii.gz")
    (scan,) = find_scans(tmp_path / "a.nii.gz")
    array = scan.pixels.read()
    assert array.dtype == np.int16 and np.array_equal(array[0], found.array) and scan.grid.matches(head.grid)
    assert cleaned.told == {0: face_files.REMOVED} and not (cleaned.removed[0] & ~found.removed).any()


def test_the_owners_page_shows_heads_before_and_after(tmp_path, plain):
    head, found = plain
    album = FaceAlbum()
    for number in range(2):
        album.take(f"I{number}", head.array, head.grid, found)
    before, after, *slices = album.views[0].pictures
    assert before.pixels.shape == after.pixels.shape and not np.array_equal(before.pixels, after.pixels)
    assert len(slices) == 2 and album.views[0].figures["brain_voxels_changed"] == 0
    write_face_page(tmp_path / "p.html", album, {face_files.REMOVED: 2}, 1)
    page = (tmp_path / "p.html").read_text()
    assert (tmp_path / "p.html").stat().st_mode & 0o777 == 0o600
    assert "do not pass it" in page and page.count("data:image/png") == 8 and "I1" in page
    assert "http" not in page


def test_a_shape_is_hidden_in_compressed_frames_too():
    pixels = np.random.default_rng(0).integers(50, 4000, (30, 20)).astype(np.uint16)
    dataset = dicom_maker.image(pixels, dicom_maker.MR, "MR")
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    mask = np.zeros((30, 20), bool)
    mask[3:9, 4:11] = True
    hide(dataset, {0: mask})
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    assert (dataset.pixel_array[mask] == pixels.min()).all()
    assert np.array_equal(dataset.pixel_array[~mask], pixels[~mask])


def test_a_site_decides_about_faces():
    assert load_profile("").faces is FaceMode.KEEP
    assert load_profile('[pixels]\nfaces = "remove"').faces is FaceMode.REMOVE
    with pytest.raises(UsageError, match="faces"):
        load_profile('[pixels]\nfaces = "blur"')


def test_ingest_takes_the_face_out_of_what_is_stored(tmp_path, plain):
    head, found = plain
    series(tmp_path / "in", head)
    cohort = ingest(tmp_path / "in", into=tmp_path / "study", faces="remove", pixels="keep", workers=1)
    ((image,),) = [case.images for case in cohort.cases]
    stored = image.read()[0]
    assert image.grid.matches(head.grid)
    changed = stored != head.array
    assert (changed & ~found.removed).sum() < 0.001 * found.removed.sum()
    assert stored[head.nose].max() < 20 and np.array_equal(stored[head.brain], head.array[head.brain])
    for word in ("blur", ""):
        with pytest.raises(UsageError, match="faces"):
            ingest(tmp_path / "in", into=tmp_path / "other", faces=word)
