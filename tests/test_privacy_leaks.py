"""The reader before a share: finds what is there in every kind of file, and leaves clean files alone."""

import gzip
import json
import shutil
import sqlite3
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from making import study
from vesalius.core.progress import Silent
from vesalius.privacy.leaks import leaks_in, owners_knowledge
from vesalius.privacy.leaks_dicom import DicomReader
from vesalius.privacy.leaks_files import ByteSearch, nifti_leaks, png_leaks
from vesalius.privacy.leaks_pixels import kinds_of_reading, pixel_leaks
from vesalius.privacy.leaks_text import Known, suspicious
from vesalius.privacy.planting_files import plant
from vesalius.privacy.pseudonyms import Pseudonyms, load_key
from vesalius.steps.ingest import ingest

GUILTY = [
    "write to jane.doe@clinic.example", "Tel. 040 123 4567", "call +49 40 1234567", "MRN: 1234567", "SSN 123-45-6789",
    "seen by Dr. Vogel", "Herr Lindemann, ambulant", "Patient name: Mueller", "MUELLER^ERIKA", "12 Elm Street",
    "Lindenstraße 7", "see https://clinic.example/p/1", "case 123456789",
]  # fmt: skip
INNOCENT = [
    "MR BRAIN W/O CONTRAST", "Parkinson disease, Wilson's disease", "t1_mprage_sag_p2_iso", "ORIGINAL\\PRIMARY\\M\\ND",
    "2.25.123456789012345678901234567890", "1.2.840.10008.5.1.4.1.1.4", "***", "SIEMENS Prisma_fit 3T", "TE 2.98 ms",
    "20140312", "Dr. ***", "0.0012345678", "Gd-DTPA 0.1 mmol/kg", "T2*-weighted EPI 64x64",
]  # fmt: skip


@pytest.mark.parametrize("text", GUILTY)
def test_forms_of_identifiers_are_known(text):
    assert suspicious(text)


@pytest.mark.parametrize("text", INNOCENT)
def test_terms_of_imaging_are_left_alone(text):
    assert suspicious(text) == set()


def test_dates_that_were_not_moved_stand_out():
    from datetime import date

    assert suspicious("compared with 12.03.2021", latest=date(2014, 5, 1)) == {"a date that was not moved"}
    assert suspicious("compared with 12.03.2014", latest=date(2014, 5, 1)) == set()
    assert suspicious("12.03.2014", latest=None) == {"a date"}


def test_the_key_recognises_what_it_once_replaced():
    names = Pseudonyms(b"k" * 32)
    known = Known(
        patient=names.patient, source=names.source, uid=names.uid, patients=frozenset({names.patient("HH-77")}),
        sources=frozenset({names.source("scan_meier_01")}), instances=frozenset({names.uid("1.2.826.0.1.3680043.1.2")}),
    )  # fmt: skip
    assert known.in_text("repeat of HH-77, supine") == {"the original identifier of a patient"}
    assert known.in_text("from scan_meier_01") == {"the original name of a file"}
    assert known.in_text("see 1.2.826.0.1.3680043.1.2.") == set()
    assert known.in_text("see 1.2.826.0.1.3680043.1.2 there") == {"the original UID of an image"}
    assert "HH-77" not in repr(known)
    assert Known(words=frozenset({"4711"})).in_text("14711 and 4711a") == set()


def test_words_are_found_in_any_encoding_and_across_blocks(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\0" * ((1 << 20) - 3) + "Kowalczyk".encode("utf-16-le"))
    with path.open("rb") as file:
        assert ByteSearch(["Kowalczyk"]).finds(file, pixels=True)
    with path.open("rb") as file:
        assert not ByteSearch(["Kowalski1"]).finds(file, pixels=True)


def test_planted_dicom_fails_in_every_file(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plant(tmp_path, 4, 1)
        reader = DicomReader(Known())
        for path in sorted(tmp_path.rglob("*.dcm")):
            kinds = {kind for _, kind in reader.leaks(path, "P0123456789abcdef")}
            assert {
                "no statement that identity was removed", "not the pseudonym of this cohort",
                "a UID that was not replaced",
                "an attribute that must be gone", "a private attribute that is not known to be safe",
            } <= kinds  # fmt: skip


def test_words_in_headers_of_plain_files(tmp_path):
    head = bytearray(352)
    head[:4], head[344:348] = struct.pack("<i", 348), b"n+1\0"
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(head)))
    assert list(nifti_leaks(path, ByteSearch([]))) == []
    head[148:153], head[348] = b"Meier", 1
    path.write_bytes(gzip.compress(bytes(head)))
    assert [place for place, _ in nifti_leaks(path, ByteSearch([]))] == ["header field descrip", "header extension"]

    picture = Image.fromarray(np.zeros((30, 30), np.uint8))
    picture.save(tmp_path / "clean.png")
    assert list(png_leaks(tmp_path / "clean.png")) == []
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "Meier")
    picture.save(tmp_path / "told.png", pnginfo=info)
    assert list(png_leaks(tmp_path / "told.png"))
    with (tmp_path / "clean.png").open("ab") as file:
        file.write(zlib.compress(b"Meier"))
    assert list(png_leaks(tmp_path / "clean.png")) == [("after the end", "bytes that do not belong there")]


def test_text_in_pixels_is_read(tmp_path):
    picture = Image.new("L", (260, 90), 40)
    picture.save(tmp_path / "clean.png")
    ImageDraw.Draw(picture).text((8, 20), "MUSTERMANN, ERIKA 12.03.1956", fill=255)
    picture.save(tmp_path / "named.png")
    assert list(pixel_leaks(tmp_path / "clean.png", Known())) == []
    assert {kind for _, kind in pixel_leaks(tmp_path / "named.png", Known())} >= {"a date, in the picture"}


def test_readings_allow_for_letters_that_look_alike():
    known = Known(words=frozenset({"HOSP10587"}))
    assert kinds_of_reading("H0SP-IO5B7", Known()) == set()
    assert kinds_of_reading("H0SP I0587", known) == {"the original identifier of a patient, in the picture"}
    assert kinds_of_reading("L 120 W 400 R", known) == set()


def test_a_cohort_is_clean_until_something_is_put_into_it(tmp_path):
    images, _ = study(tmp_path / "in", 2)
    folder = ingest(images, into=tmp_path / "study").folder
    names = Pseudonyms(load_key())

    def found(words=()):
        known = owners_knowledge(folder, names, frozenset(words))
        return {str(leak) for leak in leaks_in(folder, known, Silent())}

    assert found() == set()
    (folder / "reports" / "note.json").write_text(json.dumps({"by": "Dr. Vogel"}))
    assert found() == {"reports/note.json, its text: a name with a title"}
    (folder / "reports" / "note.json").write_text(json.dumps({"of": "case_00"}))
    assert found() == {"reports/note.json, its text: the original identifier of a patient",
                       "reports/note.json, its text: the original name of a file"}  # fmt: skip
    (folder / "reports" / "note.json").unlink()
    copy = next((folder / "images").rglob("*.nii.gz"))
    shutil.copy(copy, copy.with_name("Erika_Mustermann.nii.gz"))
    (told,) = found()
    assert told.endswith("a name that this program does not give") and "Erika" not in told
    copy.with_name("Erika_Mustermann.nii.gz").unlink()
    with sqlite3.connect(folder / "cohort.sqlite") as connection:
        connection.execute("INSERT INTO meta VALUES ('remark', 'ask Frau Lindemann')")
    assert found() == {"cohort.sqlite, table meta, column value: a name with a title"}
    assert any("its bytes" in leak for leak in found({"Lindemann"}))
