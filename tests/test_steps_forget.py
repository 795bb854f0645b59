"""A patient withdraws: no byte stays, the others stay as they were, and what was made of the patient is named."""

import json
import sqlite3

import numpy as np
import pytest

import vesalius as vs
from making import study as make_study
from vesalius.core.errors import StoreError, UsageError
from vesalius.core.identity import seen_hash
from vesalius.core.progress import Silent
from vesalius.privacy import vault as safe
from vesalius.privacy.audit import verify
from vesalius.privacy.pseudonyms import Pseudonyms, key_path, load_key
from vesalius.steps.vault import vault
from vesalius.store import erase
from vesalius.store.database import transaction
from vesalius.store.files import write_json


@pytest.fixture
def made(tmp_path):
    """Six volumes of three patients, labelled and split, with a report, a model, a rival and a cache."""
    images, labels = make_study(tmp_path, 6)
    table = tmp_path / "t.csv"
    rows = "".join(f"case_0{n},MRN{n // 2},{40 + n},walks well and sleeps well\n" for n in range(6))
    table.write_text("file,who,age,note\n" + rows)
    folder = tmp_path / "study"
    vs.ingest(images, into=folder, table=table, patient="who")
    vs.label(folder, masks=labels, names={1: "front", 2: "back"}, table=table, patient="who")
    vs.split(folder)
    return tmp_path, folder


def patient_of(number):
    return Pseudonyms(load_key()).patient(f"MRN{number}")


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def furnish(folder, patient, other):
    """What other verbs leave behind: a cache, an unfinished fit, two rivals, reports, a model, a share."""
    cohort = vs.open_cohort(folder)
    mine = next(case for case in cohort if case.patient == patient)
    theirs = next(case for case in cohort if case.patient == other)
    (folder / "cache" / "abc").mkdir()
    (folder / "cache" / "abc" / f"{mine.id}.image.b2nd").write_bytes(b"pixels")
    (folder / "models" / ".segmentation.fitting").mkdir()
    for name, seen in (("rival-a", [seen_hash(patient)]), ("rival-b", [seen_hash(other)]), ("rival-c", None)):
        card = {} if seen is None else {"patients_seen": seen}
        write_json(folder / "models" / name / "rival.json", {"values": {"card": card}})
    write_json(folder / "models" / "m" / "card.json", {"patients_seen": [seen_hash(patient), seen_hash(other)]})
    for name, case in (("with", mine), ("without", theirs)):
        (folder / "reports" / name).mkdir()
        (folder / "reports" / name / "cases.csv").write_text(f"case\n{case.id}\n")
        (folder / "reports" / name / "figure.png").write_bytes(b"picture")
    (folder / "reports" / "contact_sheet.png").write_bytes(b"faces of all")
    with transaction(folder) as connection:
        connection.execute("INSERT INTO duplicates VALUES (?, ?)", (mine.id, theirs.id))
        connection.execute("INSERT INTO findings VALUES (?, 0, 'a', 'point', '[0,0,0]', 'null', '{}')",
                           (mine.images[0].id,))  # fmt: skip
        connection.execute("INSERT INTO assessed VALUES (?)", (mine.images[0].id,))


def test_nothing_of_the_patient_stays_and_the_others_are_untouched(made):
    _, folder = made
    gone, other = patient_of(1), patient_of(0)
    furnish(folder, gone, other)
    before = vs.open_cohort(folder)
    names = [gone, *(c.id for c in before if c.patient == gone),
             *(i.id for c in before if c.patient == gone for i in c.images)]  # fmt: skip
    kept = {case.id: case.images[0].read() for case in before if case.patient != gone}
    assert len(names) == 5
    progress = Silent()
    result = vs.forget(folder, "MRN1", progress=progress)
    assert (result.cases, result.images) == (2, 2)
    assert set(result.rivals) == {"rival-a", "rival-c"} and set(result.reports) == {"with", "contact_sheet.png"}
    assert [model.rpartition("/")[2] for model in result.models] == ["m"]
    for path, data in everything(folder).items():
        for name in names[1:] if path.name == "cohort.sqlite" else names:
            assert name.encode() not in data and name not in str(path), (path, name)
    after = vs.open_cohort(folder)
    assert {case.id for case in after} == set(kept) and gone not in after.split.parts
    for case in after:
        assert np.array_equal(case.images[0].read(), kept[case.id]) and case.label_image is not None
        assert case.covariates["note"] == "walks well and sleeps well"
    assert not list((folder / "cache").iterdir()) and not (folder / "models" / ".segmentation.fitting").exists()
    assert verify(folder).broken == 0
    assert json.loads((folder / "audit.jsonl").read_text().splitlines()[-1])["what"] == "forget"
    assert progress.figures["patient"] == gone


def test_it_may_be_run_again_and_by_pseudonym(made):
    _, folder = made
    first = vs.forget(folder, patient_of(2))
    again = vs.forget(folder, "MRN2")
    assert first.cases == 2 and again.cases == 0 and again.patient == first.patient
    assert len(vs.open_cohort(folder)) == 4


@pytest.mark.parametrize("step", ["erase_files", "erase_reports", "erase_rows", "compact", "check_gone"])
def test_a_kill_anywhere_is_mended_by_running_again(made, monkeypatch, step):
    _, folder = made
    furnish(folder, patient_of(1), patient_of(0))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erase, step, killed)
        with pytest.raises(KeyboardInterrupt):
            vs.forget(folder, "MRN1")
    assert patient_of(1) in erase.forgotten(folder)
    vs.forget(folder, "MRN1")
    assert len(vs.open_cohort(folder)) == 4 and not (folder / "reports" / "with").exists()


def test_a_stranger_is_refused_and_nothing_happens(made):
    _, folder = made
    before = everything(folder)
    with pytest.raises(UsageError, match="Nobody in this cohort"):
        vs.forget(folder, "MRN9")
    assert everything(folder) == before


def test_without_the_key_nobody_is_found_and_no_key_is_made(made):
    _, folder = made
    key_path().unlink()
    with pytest.raises(UsageError, match="not here"):
        vs.forget(folder, "MRN1")
    assert not key_path().exists()


def test_what_names_the_patient_after_all_is_named(made):
    _, folder = made
    (folder / "notes.txt").write_text(f"look at {patient_of(1)}")
    with pytest.raises(StoreError, match=r"notes\.txt"):
        vs.forget(folder, "MRN1")


def test_quarantine_and_sources_shared_with_others(made):
    """Two patients' series may both be called T1: the name still finds the one who stays."""
    _, folder = made
    cohort = vs.open_cohort(folder)
    mine, theirs = (next(c.images[0].id for c in cohort if c.patient == patient_of(n)) for n in (1, 0))
    with transaction(folder) as connection:
        connection.executemany("INSERT INTO sources VALUES ('Sshared', ?, 2)", [(mine,), (theirs,)])
        own = connection.execute("SELECT key FROM sources WHERE image_id = ? AND rank = 0", (mine,)).fetchone()[0]
        connection.executemany("INSERT INTO quarantine VALUES (?, '', '')", [(own,), ("Sshared",)])
    vs.forget(folder, "MRN1")
    with sqlite3.connect(folder / "cohort.sqlite") as connection:
        assert connection.execute("SELECT image_id FROM sources WHERE key = 'Sshared'").fetchall() == [(theirs,)]
        assert connection.execute("SELECT id FROM quarantine").fetchall() == [("Sshared",)]


def test_the_vaults_record_goes_too_with_a_remark(made, monkeypatch):
    _, folder = made
    monkeypatch.setenv("VESALIUS_PASSPHRASE", "four words make one")
    vault("init")
    safe.remember_where_kept({patient_of(1): "MRN1", patient_of(0): "MRN0"})
    vs.forget(folder, "MRN1")
    opened = safe.open_vault(safe.vault_path(), safe.Secret.of(None), "look")
    assert list(opened.patients.values()) == ["MRN0"] and patient_of(1) in opened.forgotten
    with pytest.raises(UsageError, match="withdrawn"):
        vault("find", patient_of(1))


def test_models_elsewhere_are_found_where_they_are_looked_for(made):
    root, folder = made
    write_json(root / "elsewhere" / "deep" / "card.json", {"patients_seen": [seen_hash(patient_of(1))]})
    write_json(root / "elsewhere" / "other" / "card.json", ["no", "card"])
    assert [m.rpartition("/")[2] for m in vs.forget(folder, "MRN1", models=[root / "elsewhere"]).models] == ["deep"]
    with pytest.raises(UsageError, match="does not exist"):
        vs.forget(folder, "MRN1", models=[root / "nowhere"])
