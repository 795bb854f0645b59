"""Each hand-designed rival on patients made for it."""

from dataclasses import replace

import numpy as np
import pytest

from classical_cases import Held, anatomy, case, cohort, dice, tissue, turned
from vesalius.classical.align import align
from vesalius.classical.frame import Frame, Volume, read_inputs, transform
from vesalius.classical.multi_atlas import AtlasSettings, MultiAtlas
from vesalius.classical.tissue import ANYWHERE, TissueMixture, TissueSettings
from vesalius.classical.voxelwise import VoxelRegression, VoxelSettings
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind

INPUTS = ("image",)
FEW = AtlasSettings(pool=4, used=3, steps=(10, 8))


@pytest.fixture(scope="module")
def anatomies():
    return [anatomy(number) for number in range(6)]


@pytest.fixture(scope="module")
def atlases(anatomies):
    return MultiAtlas(3, FEW).fit(anatomies[:4], cohort(anatomies, 2), INPUTS)


@pytest.fixture(scope="module")
def tissues():
    return [tissue(number) for number in range(5)]


def test_multi_atlas_outlines_new_patients(atlases, anatomies):
    for patient in anatomies[4:]:
        found = atlases.predict(patient.images).label_map
        assert found.dtype == np.uint8
        assert dice(found, patient, 2).min() > 0.8


def test_multi_atlas_repeats_itself(atlases, anatomies):
    again = MultiAtlas(3, FEW).fit(anatomies[3::-1], cohort(anatomies, 2), INPUTS)  # whatever the order
    first = atlases.predict(anatomies[5].images).label_map
    assert np.array_equal(first, again.predict(anatomies[5].images).label_map)


def test_multi_atlas_answers_on_the_scans_own_grid(atlases, anatomies):
    patient = turned(anatomies[4])
    found = atlases.predict(patient.images).label_map
    assert found.shape == patient.images[0].grid.shape
    assert dice(found, patient, 2).min() > 0.75


def test_multi_atlas_works_at_a_bounded_size(anatomies):
    settings = AtlasSettings(pool=3, used=2, steps=(10, 5), overview=2000, detail=2000)
    model = MultiAtlas(0, settings).fit(anatomies[:3], cohort(anatomies, 2), INPUTS)
    assert all(size > 1.2 for size in model.spacing)
    assert all(atlas.unpack()[1].size < 0.7 * np.prod(anatomies[0].images[0].grid.shape) for atlas in model.atlases)
    found = model.predict(anatomies[4].images).label_map
    assert dice(found, anatomies[4], 2).mean() > 0.7


def test_multi_atlas_takes_no_votes_from_truth_to_be_ignored(anatomies):
    cases = []
    for number, source in enumerate(anatomies[:4]):
        label = np.where(source.label_image.read() == 2, 255, source.label_image.read())
        cases.append(case(number, source.images[0].read()[0], label, source.images[0].grid))
    model = MultiAtlas(0, FEW).fit(cases, cohort(cases, 1, ignore=255), INPUTS)
    found = model.predict(anatomies[4].images).label_map
    assert set(np.unique(found)) == {0, 1}
    assert dice(found, anatomies[4], 1)[0] > 0.75


def test_multi_atlas_needs_two_patients(anatomies):
    with pytest.raises(UnusableInput, match="two training patients"):
        MultiAtlas(0, FEW).fit(anatomies[:1], cohort(anatomies, 2), INPUTS)


def test_multi_atlas_in_planes():
    cases = [anatomy(number, shape=(48, 56, 1), spacing=(1.0, 1.0, 5.0)) for number in range(6)]
    model = MultiAtlas(0, FEW).fit(cases[:5], cohort(cases, 2), INPUTS)
    assert dice(model.predict(cases[5].images).label_map, cases[5], 2).min() > 0.75


def test_planes_are_refused_where_volumes_were_learned(atlases):
    with pytest.raises(UnusableInput, match="dimensions"):
        atlases.predict(anatomy(1, shape=(40, 40, 1)).images)


def test_constant_image_is_unusable(atlases, anatomies):
    grid = anatomies[0].images[0].grid
    blank = Image("b", grid, "image", Kind.INTENSITY, "MR", 1, Held(np.ones((1, *grid.shape), np.float32)))
    mixture = TissueMixture(0, False, ANYWHERE).fit(anatomies[:2], cohort(anatomies, 2), INPUTS)
    for model in (atlases, mixture):
        with pytest.raises(UnusableInput, match="same value"):
            model.predict([blank])


def test_alignment_finds_a_known_shift(anatomies):
    fixed = read_inputs(anatomies[0].images, INPUTS)
    affine = np.array(fixed.grid.affine)
    affine[:3, 3] += (4.0, -3.0, 5.0)
    moving = Volume(fixed.array, Grid(fixed.grid.shape, affine))
    matrix = align(fixed, moving, 0)
    corners = Frame.of(fixed.grid).corners
    assert np.abs(transform(matrix, corners) - corners - (4.0, -3.0, 5.0)).max() < 0.5


@pytest.mark.parametrize("spatial", [True, False])
def test_tissues_are_told_apart(tissues, spatial):
    settings = TissueSettings() if spatial else ANYWHERE
    model = TissueMixture(0, spatial, settings).fit(tissues[:4], cohort(tissues, 2), INPUTS)
    assert dice(model.predict(tissues[4].images).label_map, tissues[4], 2).min() > 0.9


def test_neighbours_help_under_noise():
    cases = [tissue(number, noise=0.4) for number in range(5)]

    def measured(strength: float) -> float:
        rival = TissueMixture(0, False, replace(ANYWHERE, strength=strength))
        model = rival.fit(cases[:4], cohort(cases, 2), INPUTS)
        return float(dice(model.predict(cases[4].images).label_map, cases[4], 2).mean())

    assert measured(3.0) > measured(0.0) + 0.08


def test_shading_is_taken_out():
    cases = [tissue(number, noise=0.08) for number in range(4)]
    cases.append(tissue(9, noise=0.08, shading=0.45))

    def measured(order: int) -> float:
        model = TissueMixture(0, False, replace(ANYWHERE, shading=order)).fit(cases[:4], cohort(cases, 2), INPUTS)
        return float(dice(model.predict(cases[4].images).label_map, cases[4], 2).mean())

    assert measured(1) > 0.9
    assert measured(1) > measured(0) + 0.03


def test_tissues_on_a_turned_grid(tissues):
    model = TissueMixture(0).fit(tissues[:4], cohort(tissues, 2), INPUTS)
    patient = turned(tissues[4])
    assert dice(model.predict(patient.images).label_map, patient, 2).min() > 0.85


def test_tissues_in_planes():
    cases = [tissue(number, shape=(60, 64, 1)) for number in range(5)]
    model = TissueMixture(0, False, ANYWHERE).fit(cases[:4], cohort(cases, 2), INPUTS)
    assert dice(model.predict(cases[4].images).label_map, cases[4], 2).min() > 0.85


@pytest.mark.parametrize("shape", [(60, 64, 1), (24, 26, 20)])
def test_voxels_are_judged_alone(shape):
    cases = [tissue(number, shape=shape) for number in range(5)]
    model = VoxelRegression(0, VoxelSettings(samples=400)).fit(cases[:4], cohort(cases, 2), INPUTS)
    assert dice(model.predict(cases[4].images).label_map, cases[4], 2).min() > 0.8
    assert np.array_equal(model.predict(cases[4].images).label_map, model.predict(cases[4].images).label_map)
