"""A site's profile: what it may change, and what is refused."""

import pytest

from vesalius.core.errors import UsageError
from vesalius.privacy.profile import Action, Option, PixelMode, Profile, safe_private
from vesalius.privacy.site import DEFAULT_TOML, load_profile


def test_nothing_written_is_the_default():
    assert load_profile("") == load_profile(DEFAULT_TOML) == Profile()


def test_a_site_tightens_and_relaxes():
    profile = load_profile(
        "[options]\nretain_institution_identity = true\nretain_safe_private = false\n"
        '[attributes]\nremove = ["PatientWeight"]\nclean = ["StationName"]\nkeep = ["(0018,1008)"]\n'
        '[private]\nkeep = ["0019,xx10,SIEMENS MR HEADER"]\n[pixels]\ntext = "strict"\nsecondary = true\n'
    )
    assert profile.rule_for(0x00101030).action is Action.REMOVE
    assert profile.rule_for(0x00081010).action is Action.CLEAN
    assert profile.rule_for(0x00181008).action is Action.KEEP
    assert profile.rule_for(0x00080080).action is Action.KEEP
    assert profile.keeps_private(0x00191010, "SIEMENS MR HEADER")
    assert not profile.keeps_private(0x0019100C, "SIEMENS MR HEADER")
    assert profile.pixels is PixelMode.STRICT and profile.secondary
    assert Option.SAFE_PRIVATE not in profile.options


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[options]\nretain_full_dates = true", "exclude each other"),
        ("[options]\nretain_everything = true", "no option retain_everything"),
        ("[options]\nretain_uids = 1", "neither true nor false"),
        ('[attributes]\nkeep = ["PatientName"]', "never kept"),
        ('[attributes]\nkeep = ["StationName"]\nremove = ["StationName"]', "two lists"),
        ('[attributes]\nkeep = ["Nonsense"]', "no public attribute"),
        ('[private]\nkeep = ["0018,xx10,X"]', "no private attribute"),
        ('[pixels]\ntext = "blur"', "keep, clean or strict"),
        ('[pixels]\ntext = "keep"\nsecondary = true', "only with their text cleaned"),
        ("[option]\n", "no section [option]"),
        ("nonsense", "not valid TOML"),
    ],
)
def test_contradictions_are_refused(toml, told):
    with pytest.raises(UsageError, match=told.replace("[", r"\[").replace("]", r"\]")):
        load_profile(toml)


def test_all_problems_are_told_at_once():
    with pytest.raises(UsageError) as raised:
        load_profile('[options]\nx = true\ny = true\n[pixels]\ntext = "blur"')
    assert all(word in str(raised.value) for word in ("option x", "option y", "strict"))


def test_the_table_of_safe_private_attributes_is_whole():
    assert len(safe_private()) == 87
