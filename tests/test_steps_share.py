"""share and receive: what comes out is what went in, minimised; whatever was altered or planted is named."""

import csv
import io
import json
import sqlite3
import tarfile

import numpy as np
import pydicom
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import doc_data
import vesalius as vs
from making import volume, write_nifti
from vesalius.core.errors import StoreError, UnusableInput, UsageError
from vesalius.core.progress import Silent
from vesalius.privacy import face_files, parcel
from vesalius.privacy.faces import Defaced
from vesalius.privacy.parcel import open_parcel, write_parcel
from vesalius.privacy.recipients import new_identity
from vesalius.steps.receive import NewKey
from vesalius.store.erase import shares_of

CANARY = "Zebedee-Canary-77"


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "key.txt", new_identity(tmp_path / "key.txt")


@pytest.fixture
def plain(tmp_path):
    """A cohort of eight volumes of four patients, with covariates."""
    for number in range(8):
        image, label = volume(number, (12, 12, 10))
        write_nifti(tmp_path / "in" / f"{CANARY}_{number}.nii.gz", image)
        write_nifti(tmp_path / "masks" / f"{CANARY}_{number}.nii.gz", label)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "who", "age", "ward", "dx"])
        rows.writerows([f"{CANARY}_{n}", f"{CANARY}{n // 2}", 40 + n // 2, "ab"[n // 4], "xy"[n % 2]] for n in range(8))
    folder = tmp_path / "study"
    vs.ingest(tmp_path / "in", into=folder, table=tmp_path / "t.csv", patient="who")
    vs.label(folder, masks=tmp_path / "masks", names={1: "front", 2: "back"})
    vs.label(folder, table=tmp_path / "t.csv", patient="who")
    return folder


def _decrypted(path, key_file):
    import pyrage

    key = pyrage.x25519.Identity.from_str(key_file.read_text().splitlines()[-1])
    return pyrage.decrypt(path.read_bytes(), [key])


def test_a_share_arrives_as_a_cohort(plain, keys, tmp_path):
    key_file, public = keys
    other = new_identity(tmp_path / "other.txt")
    (tmp_path / "c.toml").write_text('k = 2\nsensitive = ["dx"]\ndrop = ["ward"]\n[quasi.age]\nwidths = [2]\n')
    shared = vs.share(plain, to=[public, other], out=tmp_path / "s.age", minimise=tmp_path / "c.toml", licence="CC0")
    assert (tmp_path / "s.age").stat().st_mode & 0o777 == 0o600
    for number, name in enumerate((key_file, tmp_path / "other.txt")):
        theirs = vs.receive(tmp_path / "s.age", into=tmp_path / f"theirs{number}", identity=name)
        ours = vs.open_cohort(plain)
        assert [case.id for case in theirs] == [case.id for case in ours] and theirs.digest == ours.digest
        for mine, their in zip(ours, theirs, strict=True):
            assert np.array_equal(mine.images[0].read(), their.images[0].read())
            assert np.array_equal(mine.label_image.read(), their.label_image.read())
            assert their.covariates == {"age": "40-41" if mine.covariates["age"] < 42 else "42-43",
                                        "dx": mine.covariates["dx"]}  # fmt: skip
    folder = tmp_path / "theirs0"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert vs.show(folder, sheet=False).figures["labelled"] == 8
    assert vs.audit(folder).entries == 1
    card = json.loads((folder / "data_card.json").read_text())
    assert card["minimised"]["k"] == 2 and card["minimised"]["k_before"] == 1 and card["minimised"]["l"] == {"dx": 2}
    assert card["licence"] == "CC0" and "not anonymous" in card["status"]
    assert "age" in (folder / "data_card.md").read_text()
    with sqlite3.connect(folder / "cohort.sqlite") as connection:
        for table in ("sources", "quarantine"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
    patient = vs.open_cohort(plain).patients[0]
    (kept,) = shares_of(plain, patient)
    assert kept["id"] == shared.id and json.loads(kept["recipients"]) == [public, other]
    assert [json.loads(line)["what"] for line in (plain / "audit.jsonl").read_text().splitlines()][-1] == "share"


def test_nothing_of_the_sources_is_in_the_decrypted_bytes(plain, keys, tmp_path):
    key_file, public = keys
    vs.share(plain, to=[public], out=tmp_path / "s.age", k=1)
    data = _decrypted(tmp_path / "s.age", key_file)
    assert CANARY.encode() not in data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        assert names[0] == "manifest.json" and not any("audit" in name or "cache" in name for name in names)
        for member in tar.getmembers():
            assert CANARY.encode() not in tar.extractfile(member).read()
            assert member.mtime == 0 and member.uname == ""


def test_a_planted_identifier_stops_the_share_and_is_not_repeated(plain, keys, tmp_path):
    _, public = keys
    with sqlite3.connect(plain / "cohort.sqlite") as connection:
        connection.execute("UPDATE covariates SET value = 'Frau Lindemann' WHERE name = 'ward' AND value = 'a'")
    (plain / "reports" / "r.md").write_text(f"about {CANARY}_3")
    progress = Silent()
    with pytest.raises(UsageError) as refused:
        vs.share(plain, to=[public], out=tmp_path / "s.age", progress=progress)
    places = {(one["place"], one["kind"]) for one in progress.figures["found"]}
    assert ("cohort.sqlite, table covariates, column value", "a name with a title") in places
    assert ("reports/r.md, its text", "the original name of a file") in places
    assert "Lindemann" not in str(refused.value) and CANARY not in str(refused.value)
    assert not (tmp_path / "s.age").exists() and not list(tmp_path.glob(".s.age*"))
    (plain / "reports" / "r.md").unlink()
    vs.share(plain, to=[public], out=tmp_path / "s.age", k=2, accept=["a name with a title"])
    trail = [json.loads(line)["what"] for line in (plain / "audit.jsonl").read_text().splitlines()]
    assert trail[-2:] == ["share refused", "share"] and vs.audit(plain).own


def test_what_if_writes_nothing(plain, tmp_path):
    before = {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()}
    told = vs.share(plain, what_if=True, k=4)
    assert told.figures["minimised"]["k"] == 4 and told.file is None
    assert {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()} == before


def test_headers_lose_what_is_made_coarser(tmp_path, keys):
    key_file, public = keys
    for number in range(1, 5):
        doc_data._write_patient(tmp_path / "scans", None, number)
    for path in sorted((tmp_path / "scans").rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        patient = int(str(dataset.PatientID)[2:])
        dataset.PatientAge, dataset.PatientWeight = f"{60 + patient:03d}Y", str(70 + patient)
        dataset.save_as(path)
    study = vs.ingest(tmp_path / "scans", into=tmp_path / "study")
    (tmp_path / "c.toml").write_text(
        'k = 2\nplain = ["dicom.PatientWeight"]\n[quasi."dicom.PatientAge"]\nwidths = [10]\n'
    )
    vs.share(study, to=[public], out=tmp_path / "s.age", minimise=tmp_path / "c.toml")
    theirs = vs.receive(tmp_path / "s.age", into=tmp_path / "theirs", identity=key_file)
    assert {case.covariates["dicom.PatientAge"] for case in theirs if case.images[0].role == "T1"} == {"60-69"}
    for path in (tmp_path / "theirs").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        assert "PatientAge" not in dataset and dataset.PatientSex == "F" and 71 <= float(dataset.PatientWeight) <= 74
    for mine, their in zip(study, theirs, strict=True):
        assert np.array_equal(mine.images[0].read(), their.images[0].read())


def _face(array):
    """A result as for a head, whatever the scan."""
    mask = np.zeros(array.shape, bool)
    mask[3:9, :, 2:6] = True
    result = array.copy()
    result[mask] = array.min()
    names = ("removed_ml", "surface_removed", "relief", "brain_ml", "brain_voxels_changed")
    return Defaced(result, mask, dict.fromkeys(names, 0.0), np.eye(4))


def test_faces_are_taken_out_and_doubtful_images_left_out(tmp_path, keys, monkeypatch):
    key_file, public = keys
    for number in (1, 2):
        doc_data._write_patient(tmp_path / "scans", None, number)
    image, _ = volume(5)
    write_nifti(tmp_path / "scans" / "Q5.nii.gz", image)
    study = vs.ingest(tmp_path / "scans", into=tmp_path / "study")
    seen = []

    def look(array, scan):
        seen.append(scan)
        if len(seen) == 2:
            raise UnusableInput("A doubt about the brain.")
        return _face(array[0])

    monkeypatch.setattr(face_files, "_look", look)
    monkeypatch.setattr(face_files, "_flat", lambda scan: None)
    progress = Silent()
    shared = vs.share(study, to=[public], out=tmp_path / "s.age", k=1, progress=progress)
    faces = shared.figures["faces"]
    assert shared.figures["left_out"] == 1 and len(progress.aside) == 1
    assert faces["images_defaced"] == shared.figures["images"] == faces["images"][face_files.REMOVED]
    page = tmp_path / "s.age.private-faces.html"
    assert page.stat().st_mode & 0o777 == 0o600 and "do not pass it" in page.read_text()
    data = _decrypted(tmp_path / "s.age", key_file)
    assert b"private-faces" not in data and b"data:image/png" not in data
    theirs = vs.receive(tmp_path / "s.age", into=tmp_path / "theirs", identity=key_file)
    mine = {image.id: image.read() for case in study for image in case.images}
    for case in theirs:
        assert case.images
        for image in case.images:
            after, before = image.read(), mine[image.id]
            mask = _face(before[0]).removed
            assert np.array_equal(after[:, ~mask], before[:, ~mask])
            assert np.ptp(after[:, 4, 5, 3]) == 0 and not np.array_equal(after[:, mask], before[:, mask])
    marked = 0
    for path in (tmp_path / "theirs" / "images").rglob("*.dcm"):
        head = pydicom.dcmread(path)
        if "RecognizableVisualFeatures" in head:
            marked += 1
            assert head.RecognizableVisualFeatures == "NO"
            assert "113102" in [item.CodeValue for item in head.DeidentificationMethodCodeSequence]
    assert marked >= 4  # slices of a series
    with pytest.raises(UsageError, match="exists already"):
        (tmp_path / "s.age").unlink()
        vs.share(study, to=[public], out=tmp_path / "s.age", k=1)


@pytest.fixture
def sealed(tmp_path, keys):
    """A small parcel, its key, and its bytes."""
    folder = tmp_path / "a"
    for name, size in (("images/C1/x.bin", 150_000), ("images/C1/y.bin", 0), ("note.md", 700)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(np.random.default_rng(size).bytes(size))
    write_parcel(folder, tmp_path / "p.age", [keys[1]], Ed25519PrivateKey.generate())
    return keys[0], (tmp_path / "p.age").read_bytes(), tmp_path


def test_every_altered_byte_is_detected_and_its_file_named(sealed):
    key_file, data, place = sealed
    rng = np.random.default_rng(0)
    for number, position in enumerate([0, 20, 160, 200, *rng.integers(201, len(data), 25), len(data) - 1]):
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        (place / "q.age").write_bytes(changed)
        (place / f"o{number}").mkdir()
        with pytest.raises((StoreError, UsageError), match="altered"):
            open_parcel(place / "q.age", place / f"o{number}", key_file)
    changed = bytearray(data)
    changed[110_000] ^= 1
    (place / "q.age").write_bytes(changed)
    with pytest.raises(StoreError, match=r"images/C1/x\.bin"):
        open_parcel(place / "q.age", _new(place / "named"), key_file)


@pytest.mark.parametrize("cut", [lambda d: d[:-1], lambda d: d[:70_000], lambda d: d + b"x", lambda d: d[: 65536 * 2]])
def test_missing_and_added_bytes_are_detected(sealed, cut):
    key_file, data, place = sealed
    (place / "q.age").write_bytes(cut(data))
    with pytest.raises(StoreError):
        open_parcel(place / "q.age", _new(place / "o"), key_file)


def test_another_key_does_not_open_it_and_another_signer_is_refused(sealed):
    _, data, place = sealed
    new_identity(place / "stranger.txt")
    with pytest.raises(UsageError):
        open_parcel(place / "p.age", _new(place / "o1"), place / "stranger.txt")
    with pytest.raises(StoreError, match="another key"):
        open_parcel(place / "p.age", _new(place / "o2"), sealed[0], signed_by="00" * 32)
    assert len(open_parcel(place / "p.age", _new(place / "o3"), sealed[0]).files) == 3 and data


HOSTILE = {
    "../evil": "0", "/etc/evil": "0", "a/../../evil": "0", ".hidden": "0", "a//b": "0", "images": "2", "dev": "3",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_parcels_are_refused_and_nothing_leaves_the_folder(tmp_path, keys, name):
    """Signed and encrypted as they should be, by somebody who means harm."""
    key_file, public = keys
    entry = parcel.Entry(name, 3, "0" * 64)
    head = parcel._head(name, 3)
    if HOSTILE[name] != "0":  # a link or device where the manifest lists a file
        info = tarfile.TarInfo(name)
        info.type, info.linkname = HOSTILE[name].encode(), "/etc/passwd"
        head = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    manifest = parcel._sealed_manifest([entry], Ed25519PrivateKey.generate())
    pieces = [parcel._head("manifest.json", len(manifest)), manifest, b"\0" * (-len(manifest) % 512), head]
    import pyrage

    data = b"".join([*pieces, b"bad".ljust(512, b"\0"), b"\0" * 1024])
    (tmp_path / "p.age").write_bytes(pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(public)]))
    into = _new(tmp_path / "deep" / "o")
    with pytest.raises(StoreError):
        open_parcel(tmp_path / "p.age", into, key_file)
    assert list((tmp_path / "deep").iterdir()) == [into]


def test_a_database_that_leads_out_of_the_folder_is_refused(plain, keys, tmp_path):
    from vesalius.store.received import check_received

    key_file, public = keys
    vs.share(plain, to=[public], out=tmp_path / "s.age", k=1)
    for number, statement in enumerate((
        "UPDATE images SET path = '../../in/x.nii.gz'",
        "UPDATE labels SET path = 'labels/C0/I0.nii.gz'",
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM cases; END",
        "CREATE VIEW v AS SELECT * FROM cases",
    )):  # fmt: skip
        manifest = open_parcel(tmp_path / "s.age", folder := _new(tmp_path / f"o{number}"), key_file)
        files = frozenset(entry.name for entry in manifest.files)
        check_received(folder, files)
        with sqlite3.connect(folder / "cohort.sqlite") as connection:
            connection.execute(statement)
        with pytest.raises(StoreError):
            check_received(folder, files)


def test_what_is_in_the_way_is_left_alone(plain, keys, tmp_path):
    key_file, public = keys
    (tmp_path / "s.age").write_text("mine")
    for wrong in (
        {"to": [public], "out": tmp_path / "s.age"}, {"to": [], "out": tmp_path / "t.age"}, {"to": [public]},
        {"to": ["age1nonsense"], "out": tmp_path / "t.age"}, {"to": [public], "out": plain / "t.age"},
        {"to": [public], "out": tmp_path / "t.age", "faces": "blur"},
        {"to": [public], "out": tmp_path / "t.age", "k": 9},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            vs.share(plain, **wrong)
    assert (tmp_path / "s.age").read_text() == "mine" and not (tmp_path / "t.age").exists()
    with pytest.raises(UsageError):
        vs.receive(tmp_path / "s.age", into=plain, identity=key_file)
    with pytest.raises(UsageError):
        vs.receive(tmp_path / "s.age")
    with pytest.raises(UsageError):
        vs.receive(new_identity=key_file)
    assert isinstance(vs.receive(new_identity=tmp_path / "k2"), NewKey)
    assert (tmp_path / "k2").stat().st_mode & 0o777 == 0o600


def _new(folder):
    folder.mkdir(parents=True)
    return folder
