"""The door scores itself: every planted identifier is gone, everything else is there, and the scorer can fail."""

import shutil
import warnings

import pytest

from vesalius.privacy.planting_files import plant
from vesalius.privacy.scoring import score, search_bytes
from vesalius.steps.privacy_check import privacy_check


def test_the_strict_plant_is_passed():
    result = privacy_check(patients=3, seed=5)
    assert result.passed, str(result)
    assert all(total for total in result.total.values())


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = tmp_path_factory.mktemp("plant")
        return folder, plant(folder / "in", 3, 2)


def test_files_that_went_nowhere_near_a_door_fail(planted):
    folder, key = planted
    scores = score(key, folder / "in")
    assert scores.share < 0.6 and not scores.missing
    failed = {check.action for check in scores.failures}
    assert failed >= {"text removed", "date shifted", "UID changed", "pixels hidden"}
    assert search_bytes(folder / "in", key.forbidden)


def test_lost_files_are_told(planted, tmp_path):
    _, key = planted
    scores = score(key, tmp_path)
    assert scores.missing == sorted(key.originals) and scores.share == 0


def test_the_same_seed_plants_the_same(planted, tmp_path):
    folder, key = planted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = plant(tmp_path / "in", 3, 2)
    assert again.checks == key.checks
    first = {path.relative_to(folder / "in"): path.read_bytes() for path in (folder / "in").rglob("*.dcm")}
    second = {path.relative_to(tmp_path / "in"): path.read_bytes() for path in (tmp_path / "in").rglob("*.dcm")}
    assert first == second
    shutil.rmtree(tmp_path / "in")
