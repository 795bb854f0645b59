import numpy as np

from synthetic_study import GRID, image_of, truth_of
from vesalius.core.grid import Grid
from vesalius.tasks.outlines import ARMS, AXIAL, CORONAL, SAGITTAL, TRUTH, case_picture


def near(pixels, colour):
    return np.abs(pixels.astype(int) - colour).sum(axis=-1) < 12


def test_volumes_are_cut_in_the_orientation_of_radiology():
    volume = np.zeros((4, 5, 6), np.uint8)  # canonical: towards left, back, head
    volume[3, :, :], volume[:, 4, :], volume[:, :, 5] = 1, 2, 3
    axial, coronal, sagittal = AXIAL.cut(volume, 2), CORONAL.cut(volume, 2), SAGITTAL.cut(volume, 2)
    assert axial.shape == (5, 4) and coronal.shape == (6, 4) and sagittal.shape == (6, 5)
    assert (axial[:4, 3] == 1).all() and (axial[4] == 2).all()  # left at the right, back at the bottom
    assert (coronal[0] == 3).all() and (coronal[1:, 3] == 1).all()  # head at the top
    assert (sagittal[0] == 3).all() and (sagittal[1:, 4] == 2).all()  # back at the right


def test_both_outlines_are_drawn_in_their_colours():
    truth = truth_of(0)
    moved = np.roll(truth, 3, axis=1)
    picture = case_picture(image_of(truth, 0), truth, {"model": moved, "rival": truth}, GRID)
    third = picture.shape[0] // 3
    assert not near(picture[:third], TRUTH).any()  # the first row shows the bare image
    assert near(picture[third : 2 * third], TRUTH).any()
    assert near(picture[third : 2 * third], ARMS[0]).any()
    assert near(picture[2 * third :], ARMS[1]).any()


def test_the_picture_does_not_depend_on_the_order_of_axes():
    truth, signal = truth_of(0), image_of(truth_of(0), 0)
    straight = case_picture(signal, truth, {"model": truth}, GRID)
    affine = GRID.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (GRID.shape[0] - 1)
    affine[:3, 0] *= -1
    turned = Grid((GRID.shape[2], GRID.shape[1], GRID.shape[0]), affine[:, [2, 1, 0, 3]])
    label = truth[::-1].transpose(2, 1, 0)
    again = case_picture(signal[:, ::-1].transpose(0, 3, 2, 1), label, {"model": label}, turned)
    assert np.array_equal(straight, again)


def test_voxels_keep_their_proportions():
    grid = Grid.from_parts((30, 30, 10), spacing=(1.0, 1.0, 3.0))
    truth = np.zeros(grid.shape, np.uint8)
    truth[10:20, 10:20, 3:7] = 1
    picture = case_picture(np.zeros((1, *grid.shape), np.float32), truth, {"model": truth}, grid)
    assert picture.shape[1] <= 1081
    assert picture.shape[0] == 2 * (30 + 6 + round((1080 - 12) / 3))  # 30 x 30 x 30 mm: three square panels


def test_planes_colour_and_empty_outlines():
    grid = Grid.from_parts((50, 30, 1), placed=False, unit="pixel")
    nothing = np.zeros(grid.shape, np.uint8)
    colour = np.zeros((3, *grid.shape), np.float32)
    colour[0, 25:] = 200.0
    picture = case_picture(colour, nothing, {"model": nothing}, grid)
    panel = picture[30 : 30 + 400]
    assert panel[200, 600, 0] > 200 and panel[200, 600, 1] < 30
    assert picture.shape[2] == 3
