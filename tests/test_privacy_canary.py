"""A marker in every text of a folder, through the chain as a user runs it: no byte of what is left holds it."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from making import volume
from test_privacy_hostile import run
from test_privacy_pixels import letters

TEXTS = ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE")
LONGEST = {"SH": 16, "AE": 16}


def marked(ds: Dataset, word: str) -> None:
    """The word in every text that is there, in many that are not, and in private blocks."""
    for keyword in ("PatientComments", "ImageComments", "StudyDescription", "SeriesDescription", "ProtocolName",
                    "OperatorsName", "ReferringPhysicianName", "AccessionNumber", "InstitutionName", "StationName",
                    "RequestedProcedureDescription", "AdmittingDiagnosesDescription", "DerivationDescription",
                    ):  # fmt: skip
        setattr(ds, keyword, word[: 16 if keyword in ("AccessionNumber", "StationName") else 64])
    item = Dataset()
    item.TextValue, item.PersonName, item.CodeMeaning = f"of {word}", f"{word}^A", word
    ds.RequestAttributesSequence = Sequence([item])
    block = ds.private_block(0x0029, f"MAKER {word}", create=True)
    block.add_new(1, "LO", word)
    block.add_new(2, "OB", word.encode() + b"\0" * (len(word) % 2))
    for element in ds.iterall():
        if element.VR in TEXTS and element.tag.group % 2 == 0:
            element.value = word[: LONGEST.get(element.VR, 64)]
    ds.PatientName, ds.PatientID = f"{word}^Ann", word


def folder_of(home: Path, word: str) -> None:
    place = home / word
    place.mkdir(parents=True)
    for number, carrier in enumerate(
        ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm", "rtplan.dcm", "examples_overlay.dcm")
    ):
        ds = dcmread(get_testdata_file(carrier, download=False))
        marked(ds, word)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.file_meta.SourceApplicationEntityTitle = word[:16]
        ds.preamble = word.encode().ljust(128, b"\0")
        if carrier == "CT_small.dcm":
            pixels = ds.pixel_array.copy()
            pixels[letters(word.upper(), pixels.shape)] = pixels.max()
            ds.PixelData = pixels.tobytes()
        ds.save_as(place / f"{word}_{number}.dcm", enforce_file_format=True)
    picture = np.full((200, 300), 40, np.uint8)
    picture[letters(word.upper(), picture.shape)] = 255
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", f"patient {word}")
    Image.fromarray(picture).save(place / f"{word}_1.png", pnginfo=told)
    image = nib.Nifti1Image(volume(1)[0], np.eye(4))
    image.header["descrip"] = word.encode()
    nib.save(image, place / f"{word}_2.nii.gz")
    (place / f"{word}.dcm").write_bytes(b"damaged " + word.encode())
    packed = shutil.make_archive(str(home.parent / "packed"), "zip", place)
    shutil.move(packed, place / f"{word}_more.zip")


def table_of(path: Path, word: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "patient", "age", "remark"])
        writer.writerow([f"{word}/{word}_2.nii.gz", word, 40, f"seen by Dr. {word}"])


@pytest.mark.parametrize(("word", "mode"), [("Vandermolen", ("--secondary",)), ("ZQXCANARY77", ("--pixels", "keep"))])
def test_a_marker_is_in_no_byte_that_is_left(tmp_path, word, mode):
    folder_of(tmp_path / "in", word)
    table_of(tmp_path / "table.csv", word)
    study, home = str(tmp_path / "study"), tmp_path / "home"
    said = []
    for arguments in (
        ("ingest", str(tmp_path / "in"), "--into", study, *mode),
        ("label", study, "--table", str(tmp_path / "table.csv"), "--patient", "patient"),
        ("split", study, "--test-share", "0.5"),
        ("show", study),
        ("audit", "verify", study),
    ):
        done = run(*arguments, home=home, limits=None)
        assert done.returncode in (0, 1), done.stderr
        said.append(done.stdout + done.stderr)
    assert word.lower() not in "".join(said).lower()
    for path in (tmp_path / "study").rglob("*"):
        assert word.lower() not in path.relative_to(tmp_path).as_posix().lower()
        if path.is_file():
            raw = path.read_bytes().lower()
            for code in ("utf-8", "utf-16-le", "utf-16-be"):
                assert word.lower().encode(code) not in raw, path
    assert len(list((tmp_path / "study" / "images").rglob("*.dcm"))) >= 4
