"""Encrypted at rest: everything works as without, nothing can be read without the key, and damage is named."""

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

import vesalius as vs
from dicom_maker import volume_slices, write
from making import study as make_study
from making import volume
from vesalius.core.errors import StoreError, UsageError, WithdrawnPatient
from vesalius.core.progress import Silent
from vesalius.privacy.pseudonyms import key_path, load_key
from vesalius.store import sealed
from vesalius.store.private import make_private, private_folder
from vesalius.store.sealed import CHUNK, Seal, new_encryption, seal_of, sealed_path

NAMES = {1: "front", 2: "back"}


@pytest.fixture(autouse=True)
def fresh():
    sealed.forget_keys()


@pytest.fixture
def seal(tmp_path):
    return Seal(tmp_path, new_encryption(load_key()))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_is_sealed_comes_back(seal, tmp_path, size):
    data = os.urandom(size)
    seal.write(tmp_path / "images" / "a.bin", data)
    assert seal.read(tmp_path / "images" / "a.bin") == data
    whole = sealed_path(tmp_path / "images" / "a.bin").read_bytes()
    assert size < 16 or data[:16] not in whole


def test_the_same_content_never_looks_the_same(seal, tmp_path):
    for name in "ab":
        seal.write(tmp_path / name, b"the same")
    one, other = (sealed_path(tmp_path / name).read_bytes() for name in "ab")
    assert one[60:] != other[60:]


def test_a_flipped_byte_anywhere_is_found_and_the_file_named(seal, tmp_path):
    seal.write(tmp_path / "a.bin", os.urandom(CHUNK + 100))
    path = sealed_path(tmp_path / "a.bin")
    whole = path.read_bytes()
    for place in (0, 20, 55, 60, CHUNK, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreError, match=r"a\.bin\.sealed"):
            seal.read(tmp_path / "a.bin")
    path.write_bytes(whole[: -CHUNK // 2] + bytes([whole[-CHUNK // 2] ^ 1]) + whole[-CHUNK // 2 + 1 :])
    with pytest.raises(StoreError, match="Part 1 of 2"):
        seal.read(tmp_path / "a.bin")


def test_cut_swapped_and_moved_chunks_are_found(seal, tmp_path):
    data = os.urandom(3 * CHUNK)
    for name in ("a.bin", "b.bin"):
        seal.write(tmp_path / name, data)
    path, head, part = sealed_path(tmp_path / "a.bin"), 58, CHUNK + 16
    whole = path.read_bytes()
    first, second = whole[head : head + part], whole[head + part : head + 2 * part]
    for changed in (
        whole[:-part],
        whole[: head + part],
        whole + b"x",
        b"",
        whole[:head] + second + first + whole[head + 2 * part :],
    ):
        path.write_bytes(changed)
        with pytest.raises(StoreError):
            seal.read(tmp_path / "a.bin")
    shutil.copy(sealed_path(tmp_path / "b.bin"), path)
    with pytest.raises(StoreError, match="moved here"):
        seal.read(tmp_path / "a.bin")


def test_private_folders_are_private_and_gone_afterwards():
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()
    with pytest.raises(RuntimeError), private_folder() as folder:
        (folder / "x").write_text("secret")
        raise RuntimeError
    assert not folder.exists()


def test_what_a_killed_process_left_is_swept():
    left = make_private()
    dead = left.rename(left.with_name(left.name.replace(f"-{os.getpid()}-", "-999999999-")))
    with private_folder():
        assert not dead.exists()


@pytest.fixture
def both(tmp_path):
    """The same study twice: plain and encrypted."""
    images, labels = make_study(tmp_path, 4)
    for name, encrypt in (("plain", False), ("closed", True)):
        vs.ingest(images, into=tmp_path / name, encrypt=encrypt)
        vs.label(tmp_path / name, masks=labels, names=NAMES)
    return tmp_path


def plain_files(folder: Path) -> list[Path]:
    parts = ("images", "labels", "cache")
    return [
        path for part in parts for path in (folder / part).rglob("*") if path.is_file() and path.suffix != ".sealed"
    ]


def test_an_encrypted_cohort_reads_as_a_plain_one(both):
    plain, closed = vs.open_cohort(both / "plain"), vs.open_cohort(both / "closed")
    assert plain.digest == closed.digest and len(closed) == 4
    for one, other in zip(plain, closed, strict=True):
        assert np.array_equal(one.images[0].read(), other.images[0].read())
        assert np.array_equal(one.label_image.read(), other.label_image.read())
    assert not plain_files(both / "closed") and len(list((both / "closed").rglob("*.sealed"))) == 8


def test_dicom_stays_encrypted_also_when_more_comes_later(tmp_path):
    signal, _ = volume(1)
    write(tmp_path / "scans" / "one", volume_slices(signal.astype(np.int16), PatientID="MRN1"))
    cohort = vs.ingest(tmp_path / "scans", into=tmp_path / "closed", encrypt=True)
    write(
        tmp_path / "scans" / "two", volume_slices(signal.astype(np.int16), PatientID="MRN2", SeriesInstanceUID="1.2.9")
    )
    cohort = vs.ingest(tmp_path / "scans", into=tmp_path / "closed")
    assert len(cohort) == 2 and not plain_files(tmp_path / "closed")
    assert {case.images[0].read().shape for case in cohort} == {(1, *signal.shape)}


def test_the_verbs_work(both):
    closed = both / "closed"
    sheet = vs.show(closed).sheet
    assert sheet.exists()
    vs.split(closed, test_share=0.25, folds=2)
    vs.export(closed, "nnunet", to=both / "out")
    assert len(list((both / "out").rglob("*.nii.gz"))) == 8


def test_without_the_key_or_with_another_nothing_is_read(both):
    case = vs.open_cohort(both / "closed").cases[0]
    key = key_path().read_bytes()
    key_path().unlink()
    sealed.forget_keys()
    with pytest.raises(UsageError, match="not here"):
        case.images[0].read()
    key_path().write_bytes(key[::-1])
    with pytest.raises(StoreError, match="does not open it"):
        case.label_image.read()
    with pytest.raises(StoreError, match="does not open it"):
        vs.ingest(both / "images", into=both / "closed")


def test_a_cohort_may_be_moved_but_not_its_files(both):
    (both / "closed").rename(both / "elsewhere")
    cohort = vs.open_cohort(both / "elsewhere")
    assert cohort.cases[0].images[0].read().shape == (1, 20, 24, 18)
    one, other = sorted((both / "elsewhere" / "images").rglob("*.sealed"))[:2]
    shutil.copy(one, other)
    with pytest.raises(StoreError, match="moved here"):
        [case.images[0].read() for case in cohort]


def test_a_plain_cohort_is_not_half_encrypted(both):
    with pytest.raises(UsageError, match="not encrypted"):
        vs.ingest(both / "images", into=both / "plain", encrypt=True)


def test_it_says_before_that_a_lost_key_is_the_end(tmp_path):
    class Told(Silent):
        said: list = []  # noqa: RUF012

        def say(self, sentence):
            self.said.append((sentence, len(list(tmp_path.rglob("*.sealed")))))

    images, _ = make_study(tmp_path, 1)
    vs.ingest(images, into=tmp_path / "closed", encrypt=True, progress=Told())
    assert any("can recover nothing" in sentence and not written for sentence, written in Told.said)


def test_the_key_shows_nowhere(both):
    seal = seal_of(both / "closed")
    seal.lock()
    assert seal.wrapped not in repr(seal) and load_key().hex() not in repr(vs.open_cohort(both / "closed"))


def test_forgetting_and_coming_again(both):
    closed = both / "closed"
    assert vs.forget(closed, "case_02").cases == 1
    assert len(list(closed.rglob("*.sealed"))) == 6
    progress = Silent()
    assert len(vs.ingest(both / "images", into=closed, progress=progress)) == 3
    assert "withdrawn" in progress.aside[0]["reason"]
    assert not (closed / "cohort.sqlite").read_bytes().count(b"withdrawn")
    with pytest.raises(UsageError, match="readmit"):
        vs.ingest(both / "images", into=closed, readmit=["case_03"])
    assert len(vs.ingest(both / "images", into=closed, readmit=["case_02"])) == 4
    assert issubclass(WithdrawnPatient, Exception)


def test_the_cache_and_rivals_are_encrypted_too(both):
    pytest.importorskip("torch")
    from vesalius.classical.kept import Kept
    from vesalius.classical.storage import save_rival
    from vesalius.imaging.prepare import Normalisation, Preparation
    from vesalius.learning.data import prepare_cases

    cohort, plain = vs.open_cohort(both / "closed"), vs.open_cohort(both / "plain")
    preparation = Preparation(("image",), (1.0, 1.0, 1.2), (Normalisation("zscore"),))
    for _ in range(2):
        ready, left_out = prepare_cases(cohort, cohort.cases, preparation, Silent())
        assert not left_out and not plain_files(both / "closed")
    other, _ = prepare_cases(plain, plain.cases, preparation, Silent())
    for one, two in zip(ready, other, strict=True):
        assert np.array_equal(one.image()[:], two.image()[:]) and np.array_equal(one.label()[:], two.label()[:])
        assert np.array_equal(one.image()[:, 2:5, 3:9], two.image()[:, 2:5, 3:9])

    class Model:
        def keep(self):
            return Kept("voxelwise", {"card": {}}, {"atlas": b"pixels of a patient"})

    folder = both / "closed" / "models" / "rival-segmentation"
    save_rival(Model(), folder)
    assert sorted(path.suffix for path in folder.iterdir()) == [".sealed", ".sealed"]
    assert seal_of(both / "closed").read(folder / "atlas.npz") == b"pixels of a patient"


def test_who_reads_every_file_gets_a_plain_copy_that_goes(both):
    from vesalius.store.sealed import opened_cohort

    with opened_cohort(both / "plain") as same:
        assert same == both / "plain"
    with opened_cohort(both / "closed") as copy:
        assert len(vs.open_cohort(copy)) == 4 and seal_of(copy) is None
        assert all(case.images[0].read().shape == (1, 20, 24, 18) for case in vs.open_cohort(copy))
    assert not copy.exists()


def test_evaluate_leaves_nothing_plain_behind(both):
    closed = both / "closed"
    vs.split(closed, test_share=0.5, folds=2)

    class Threshold:
        """Says that what is bright is in front."""

        card = {  # noqa: RUF012
            "name": "threshold", "task": "segmentation", "inputs": ["image"],
            "classes": [{"value": 1, "name": "front"}, {"value": 2, "name": "back"}],
        }  # fmt: skip

        def predict(self, images):
            return vs.Prediction(label_map=(images[0].read()[0] > 140).astype(np.uint8))

    report = vs.evaluate(Threshold(), on=closed, rival=False)
    assert report.metrics and not plain_files(closed)
