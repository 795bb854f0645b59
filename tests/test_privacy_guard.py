"""The audit trail and the vault: what was changed is named, and who lost the secret gets nothing."""

import json
import os
import stat

import pytest

from vesalius.core.errors import StoreError, UsageError
from vesalius.core.progress import Silent
from vesalius.privacy import vault as safe
from vesalius.privacy.audit import record, verify
from vesalius.privacy.pseudonyms import key_path, load_key
from vesalius.steps.audit import audit
from vesalius.steps.vault import vault
from vesalius.store.database import create

KEY = b"k" * 32


@pytest.fixture
def cohort(tmp_path):
    create(tmp_path / "study", "study")
    for number in range(4):
        record(tmp_path / "study", KEY, "ingest", cases=number, figures={"added": number})
    return tmp_path / "study"


@pytest.fixture
def own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("VESALIUS_PASSPHRASE", "four words make one")
    monkeypatch.setattr(safe, "_SCRYPT", {"n": 2**10, "r": 8, "p": 1})
    return tmp_path


def test_a_whole_trail_holds(cohort):
    assert verify(cohort, KEY).entries == 4 and verify(cohort, KEY).broken == 0
    assert verify(cohort, KEY).own and not verify(cohort, b"x" * 32).own


@pytest.mark.parametrize("line", range(4))
def test_any_changed_entry_is_named(cohort, line):
    path = cohort / "audit.jsonl"
    lines = path.read_bytes().splitlines()
    lines[line] = lines[line].replace(b'"cases": ', b'"cases": 7')
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert verify(cohort).broken == line + 1


def test_a_flipped_byte_anywhere_is_detected(cohort):
    path = cohort / "audit.jsonl"
    whole = path.read_bytes()
    for position in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert verify(cohort).broken > 0, position


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\n", b"\n\n", b" \n"])
def test_a_changed_end_of_the_trail_is_named(cohort, end):
    path = cohort / "audit.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n") + end)
    assert verify(cohort).broken in (4, 5)


def test_a_removed_moved_or_cut_entry_is_named(cohort):
    path = cohort / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for changed, broken in ((lines[:-1], 4), (lines[1:], 1), ([lines[1], lines[0], *lines[2:]], 1), ([], 1)):
        path.write_bytes(b"".join(changed))
        assert verify(cohort).broken == broken


def test_the_step_names_the_broken_entry(cohort, own_place):
    assert audit(cohort).entries == 4
    path = cohort / "audit.jsonl"
    path.write_text(path.read_text().replace('"cases": 2', '"cases": 9'))
    with pytest.raises(StoreError, match="broken at entry 3"):
        audit(cohort)


def test_no_entry_names_anybody(cohort):
    for line in (cohort / "audit.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {
            "number", "time", "who", "what", "cases", "figures", "before", "signed_by", "signature"
        }  # fmt: skip


def test_a_vault_takes_the_key_and_gives_it_back(own_place):
    key = load_key()
    vault("init")
    assert not key_path().exists() and load_key() == key
    assert stat.S_IMODE(safe.vault_path().stat().st_mode) == 0o600
    safe.remember_where_kept({"P1": "MRN778812"})
    assert b"MRN778812" not in safe.vault_path().read_bytes() and key not in safe.vault_path().read_bytes()
    assert "MRN778812" in str(vault("find", "P1"))
    with pytest.raises(UsageError, match="does not know"):
        vault("find", "P2")
    vault("export", to=own_place / "patients.csv")
    assert "P1,MRN778812" in (own_place / "patients.csv").read_text()
    opened = safe.open_vault(safe.vault_path(), safe.Secret.of(None), "look")
    assert {"find P1", "export", "look"} <= {one["why"] for one in opened.openings}


def test_rotating_changes_the_passphrase_and_no_pseudonym(own_place, monkeypatch):
    key = load_key()
    vault("init")
    vault("rotate", new_passphrase="four other words here")
    with pytest.raises(UsageError, match="does not open"):
        load_key()
    monkeypatch.setenv("VESALIUS_PASSPHRASE", "four other words here")
    assert load_key() == key


def test_a_flipped_byte_of_the_vault_is_detected(own_place):
    vault("init")
    whole = safe.vault_path().read_bytes()
    for position in range(0, len(whole), 29):
        safe.vault_path().write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(UsageError):
            load_key()


def test_a_key_file_opens_instead_of_a_passphrase(own_place, monkeypatch):
    monkeypatch.delenv("VESALIUS_PASSPHRASE")
    file = own_place / "secret"
    file.write_bytes(os.urandom(32))
    key = load_key()
    vault("init", key_file=file)
    monkeypatch.setenv("VESALIUS_KEY_FILE", str(file))
    assert load_key() == key


def test_key_files_that_begin_alike_are_different_keys(own_place, monkeypatch):
    monkeypatch.delenv("VESALIUS_PASSPHRASE")
    right, wrong = own_place / "right", own_place / "wrong"
    for file in (right, wrong):
        file.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----".ljust(80, b"A") + os.urandom(32))
    vault("init", key_file=right)
    monkeypatch.setenv("VESALIUS_KEY_FILE", str(wrong))
    with pytest.raises(UsageError, match="does not open"):
        load_key()
    monkeypatch.setenv("VESALIUS_KEY_FILE", str(right))
    load_key()


def test_two_processes_that_make_the_first_key_get_the_same(own_place, monkeypatch):
    other = b"o" * 32

    def beaten(_, path):
        path.write_bytes(other)
        raise FileExistsError

    monkeypatch.setattr(os, "link", beaten)
    assert load_key() == other and [path.name for path in key_path().parent.iterdir()] == [key_path().name]


def test_the_key_is_whole_and_its_owners_only(own_place):
    assert len(load_key()) == 32 and stat.S_IMODE(key_path().stat().st_mode) == 0o600


def test_short_secrets_and_a_second_vault_are_refused(own_place, monkeypatch):
    monkeypatch.setenv("VESALIUS_PASSPHRASE", "short")
    with pytest.raises(UsageError, match="too short"):
        vault("init")
    monkeypatch.setenv("VESALIUS_PASSPHRASE", "long enough it is")
    vault("init")
    with pytest.raises(UsageError, match="already"):
        vault("init")


def test_damage_of_the_vault_is_told_from_a_wrong_passphrase(own_place, monkeypatch):
    vault("init")
    path = safe.vault_path()
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    with pytest.raises(UsageError, match=r"vault\.bin: The vault's file was changed"):
        load_key()
    path.write_bytes(whole)
    monkeypatch.setenv("VESALIUS_PASSPHRASE", "quite another phrase")
    with pytest.raises(UsageError, match="passphrase or key file is wrong"):
        load_key()


def test_every_opening_is_recorded_before_anything_is_given_out(own_place):
    load_key()
    vault("init")
    safe.remember_where_kept({"P1": "MRN1"})
    load_key()
    with pytest.raises(UsageError):
        vault("find", "P404")
    vault("rotate", new_passphrase=os.environ["VESALIUS_PASSPHRASE"])
    openings = safe.open_vault(safe.vault_path(), safe.Secret.of(None), "look").openings
    assert [one["why"] for one in openings] == ["ingest", "pseudonym key", "find P404", "rotate", "look"]
    assert all(one["who"] and one["time"] for one in openings)


def test_a_vault_of_the_first_version_still_opens(own_place):
    """It had no check sum of its own, and no list of forgotten patients."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    secret = safe.Secret.of(None)
    header = {"key_file": False, "n": 2**10, "nonce": "00" * 12, "p": 1, "r": 8, "salt": "00" * 16}
    bound = b"VESALIUS VAULT 1\n" + json.dumps(header, sort_keys=True).encode() + b"\n"
    content = json.dumps({"key": "11" * 32, "patients": {"P1": "MRN1"}, "openings": []}).encode()
    sealed = AESGCM(safe._file_key(secret, header)).encrypt(bytes(12), content, bound)
    safe.vault_path().parent.mkdir(parents=True, exist_ok=True)
    safe.vault_path().write_bytes(bound + sealed)
    assert safe.open_vault(safe.vault_path(), secret, "look").patients == {"P1": "MRN1"}


def test_init_says_before_it_begins_that_a_lost_key_is_the_end(own_place):
    said = []

    class Told(Silent):
        def say(self, sentence):
            said.append((sentence, safe.vault_path().exists()))

    vault("init", progress=Told())
    assert any("nothing can be recovered" in " ".join(sentence.split()) and not there for sentence, there in said)
