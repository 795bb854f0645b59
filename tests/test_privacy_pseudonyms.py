"""Pseudonyms: stable with the key, unlinkable without it, and the key itself is guarded."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vesalius.core.errors import UsageError
from vesalius.privacy.pseudonyms import KEY_BYTES, Pseudonyms, load_key

ONE, OTHER = Pseudonyms(b"1" * KEY_BYTES), Pseudonyms(b"2" * KEY_BYTES)


@given(st.text(min_size=1))
def test_same_key_same_pseudonym_other_key_another(identifier):
    assert ONE.patient(identifier) == Pseudonyms(b"1" * KEY_BYTES).patient(identifier)
    assert ONE.patient(identifier) != OTHER.patient(identifier)
    assert identifier not in ONE.patient(identifier) or len(identifier) <= 2


@given(st.text(min_size=1))
def test_purposes_do_not_share_pseudonyms(value):
    assert ONE.patient(value)[1:] != ONE.source(value)[1:17]


@given(st.text())
def test_dates_move_into_the_past_and_never_by_nothing(identifier):
    assert 1 <= ONE.shift_days(identifier) <= 3650


@given(st.from_regex(r"1\.2\.[1-9][0-9]{0,20}(\.[1-9][0-9]{0,10}){0,3}", fullmatch=True))
def test_uids_are_valid_and_new(uid):
    new = ONE.uid(uid)
    assert new.startswith("2.25.") and len(new) <= 64 and new != uid


def test_key_is_made_once_and_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "deep" / "key"
    key = load_key(path)
    assert load_key(path) == key and len(key) == KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_something_else_is_not_taken_for_a_key(tmp_path):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(UsageError):
        load_key(tmp_path / "key")


def test_key_does_not_show_in_its_representation():
    assert "1111" not in repr(ONE)
