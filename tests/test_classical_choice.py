"""The choice among the rivals, and how the chosen one is kept."""

import json

import numpy as np
import pytest

from classical_cases import anatomy, case, cohort, dice, tissue
from vesalius.classical.choice import BestRival, best_rival, load_rival, rival_folder, save_rival
from vesalius.classical.multi_atlas import AtlasSettings, MultiAtlas
from vesalius.classical.tissue import ANYWHERE, TissueMixture
from vesalius.classical.voxelwise import VoxelRegression
from vesalius.core.errors import StoreError, UnusableInput, UsageError
from vesalius.core.protocols import Rival

INPUTS = ("image",)
SMALL = (16, 18, 14)


@pytest.fixture(scope="module")
def anatomies():
    return [anatomy(number, shape=SMALL) for number in range(7)]


@pytest.fixture(scope="module")
def chosen(anatomies):
    return BestRival(1).fit(anatomies[:6], cohort(anatomies, 2), INPUTS)


def test_the_best_on_patients_held_back_is_kept(chosen, anatomies):
    figures = chosen.card["choice"]["dice"]
    assert chosen.card["name"] == max(figures, key=figures.get)
    assert chosen.card["choice"]["held_back"] == 2
    assert f"{figures[chosen.card['name']]:.3f}" in chosen.card["sentences"][-1]
    assert dice(chosen.predict(anatomies[6].images).label_map, anatomies[6], 2).mean() > 0.7
    assert isinstance(best_rival(cohort(anatomies, 2)), Rival)


def test_the_card_can_be_written(chosen):
    assert json.loads(json.dumps(chosen.card))["classes"][1] == {"value": 2, "name": "two"}


@pytest.mark.parametrize(
    "rival",
    [
        MultiAtlas(0, AtlasSettings(pool=3, used=2, steps=(4, 2))),
        TissueMixture(0),
        TissueMixture(0, spatial=False, settings=ANYWHERE),
        VoxelRegression(0),
    ],
    ids=["multi-atlas", "tissue", "tissue-anywhere", "voxelwise"],
)
def test_a_kept_rival_answers_alike(rival, anatomies, tmp_path):
    study = cohort(anatomies, 2, tmp_path)
    model = rival.fit(anatomies[:4], study, INPUTS)
    for _ in range(2):  # the second replaces the first
        save_rival(model, rival_folder(study))
    again = load_rival(rival_folder(study))
    assert json.dumps(again.card) == json.dumps(model.card)
    first, second = (one.predict(anatomies[6].images).label_map for one in (model, again))
    assert np.array_equal(first, second)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["rival-segmentation"]


def test_the_choice_is_kept_with_the_rival(chosen, anatomies, tmp_path):
    save_rival(chosen, tmp_path / "rival")
    assert load_rival(tmp_path / "rival").card["choice"] == chosen.card["choice"]


def test_a_damaged_rival_is_refused(chosen, tmp_path):
    folder = tmp_path / "rival"
    with pytest.raises(StoreError, match="No whole rival"):
        load_rival(folder)
    save_rival(chosen, folder)
    for path in folder.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError):
        load_rival(folder).predict([])
    (folder / "rival.json").write_text("{", "utf-8")
    with pytest.raises(StoreError, match="cannot be read"):
        load_rival(folder)


def test_another_kind_of_model_cannot_be_kept(tmp_path):
    with pytest.raises(UsageError, match="cannot be kept"):
        save_rival(object(), tmp_path / "rival")


def test_two_patients_are_enough_for_a_rival_untried():
    cases = [tissue(number, shape=(14, 14, 12)) for number in range(2)]
    model = BestRival(0).fit(cases, cohort(cases, 2), INPUTS)
    assert "untried" in model.card["sentences"][-1]


def test_planes_without_anatomy_find_a_rival():
    rng = np.random.default_rng(0)
    cases = []
    for number in range(7):  # a dark disc anywhere on noisy ground
        x, y = np.meshgrid(np.arange(48), np.arange(40), indexing="ij")
        inside = (x - rng.uniform(12, 36)) ** 2 + (y - rng.uniform(12, 28)) ** 2 < rng.uniform(5, 9) ** 2
        image = rng.normal(100, 20, inside.shape) - 60 * inside
        grid = anatomy(0, shape=(48, 40, 1)).images[0].grid
        cases.append(case(number, image[..., None], inside[..., None], grid))
    model = BestRival(0).fit(cases[:6], cohort(cases, 1), INPUTS)
    assert model.card["name"] != "multi-atlas segmentation"
    assert dice(model.predict(cases[6].images).label_map, cases[6], 1)[0] > 0.8


def test_without_truth_there_is_no_rival(anatomies):
    bare = [type(one)(one.id, one.patient, one.images) for one in anatomies]
    with pytest.raises(UnusableInput, match="No hand-designed rival"):
        BestRival(0).fit(bare, cohort(bare, 2), INPUTS)
