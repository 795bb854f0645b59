"""Making a cohort: killed at any moment, or by two processes at once, and never over somebody's files."""

import fcntl

import pytest

from vesalius.core.errors import StoreError
from vesalius.store.database import create, database_path, held, transaction


def name_of(folder):
    with transaction(folder) as connection:
        return connection.execute("SELECT value FROM meta WHERE key = 'name'").fetchone()[0]


def test_what_a_killed_run_began_is_finished(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / ".cohort.sqlite.new7").write_bytes(b"half")
    create(tmp_path, "study")
    assert name_of(tmp_path) == "study"


def test_a_cohort_that_another_process_made_meanwhile_stays(tmp_path, monkeypatch):
    create(tmp_path / "theirs", "theirs")

    def beaten(made, place):
        place.write_bytes(database_path(tmp_path / "theirs").read_bytes())
        raise FileExistsError

    monkeypatch.setattr("os.link", beaten)
    create(tmp_path / "study", "ours")
    assert name_of(tmp_path / "study") == "theirs"
    assert not [path for path in (tmp_path / "study").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["scan.dcm", "images/scan.dcm"])
def test_other_files_are_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"theirs")
    with pytest.raises(StoreError, match="not a cohort"):
        create(tmp_path, "study")


def test_a_cohort_that_another_process_writes_into_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("vesalius.store.database._PATIENCE", 0.2)
    create(tmp_path / "study", "study")
    with (tmp_path / "study" / ".held").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="Another process"), held(tmp_path / "study"):
            pass
    with held(tmp_path / "study"), transaction(tmp_path / "study") as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
