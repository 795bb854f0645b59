"""The sliding window, the slab and the way back to the source grid."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.core.errors import BundleError
from vesalius.core.grid import Grid
from vesalius.imaging.prepare import Normalisation, Preparation, Prepared, prepare_array
from vesalius.inference import planes as planes_module
from vesalius.inference.planes import LabelWriter
from vesalius.inference.sliding import Sliding, peak_memory_mb, predict_labels, probability_planes

WEIGHTS = np.array([[1.0, -0.5], [-2.0, 1.5], [0.3, 0.7]], np.float32)  # classes x channels


def pointwise(batch: np.ndarray) -> np.ndarray:
    """A 1 x 1 x 1 convolution: what a voxel gets does not depend on its window."""
    return np.einsum("oc,ncijk->noijk", WEIGHTS, batch, dtype=np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    share = np.exp(logits - logits.max(axis=0))
    return share / share.sum(axis=0)


def blob(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    smooth = np.stack([gaussian_filter(channel, 1.5) for channel in noise])
    return (smooth / smooth.std()).astype(np.float32)


def together(array: np.ndarray, run, sliding: Sliding, axis: int, classes: int = 3, batch=None) -> np.ndarray:
    blocks = [block.copy() for block in probability_planes(array, run, sliding, axis, classes, batch=batch)]
    return np.moveaxis(np.concatenate(blocks, axis=1), 1, 1 + axis)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 26)] * 3),
    patch=st.tuples(*[st.integers(2, 12)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    axis=st.integers(0, 2),
    mirror=st.sampled_from([(), (0,), (1, 2), (0, 1, 2)]),
    batch=st.sampled_from([None, 1, 3]),
)
def test_windows_of_a_pointwise_network_equal_the_whole_volume(shape, patch, overlap, axis, mirror, batch) -> None:
    array = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    sliding = Sliding(patch, overlap, mirror)
    found = together(array, pointwise, sliding, axis, batch=batch)
    np.testing.assert_allclose(found, softmax(pointwise(array[None])[0]), atol=1e-5)


def test_slab_equals_a_plain_sliding_window() -> None:
    """Against the textbook: one accumulator over the whole volume, and one weight map."""

    def edge_aware(batch: np.ndarray) -> np.ndarray:
        ramp = np.linspace(-1, 1, batch.shape[2], dtype=np.float32)[:, None, None]
        return pointwise(batch) + ramp * np.array([1, 0, -1], np.float32)[:, None, None, None]

    array, sliding = blob((37, 20, 31)), Sliding((12, 10, 8), 0.5)
    window, starts = sliding.window(array.shape[1:]), sliding.starts(array.shape[1:])
    line = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window]
    line = [np.maximum(weight, 1e-3) for weight in line]
    gauss = line[0][:, None, None] * line[1][:, None] * line[2]
    total, weights = np.zeros((3, 37, 20, 31)), np.zeros((37, 20, 31))
    for corner in itertools.product(*starts):
        place = tuple(slice(first, first + n) for first, n in zip(corner, window, strict=True))
        total[(slice(None), *place)] += softmax(edge_aware(array[(None, slice(None), *place)])[0]) * gauss
        weights[place] += gauss
    for axis in range(3):
        np.testing.assert_allclose(together(array, edge_aware, sliding, axis), total / weights, atol=1e-5)


def test_mirrored_prediction_is_equivariant() -> None:
    """A network that prefers one side answers alike for a volume and its mirror image once it is mirrored."""

    def lopsided(batch: np.ndarray) -> np.ndarray:
        return pointwise(batch) + np.roll(batch, 1, axis=2)[:, :1] * WEIGHTS[:, 1][:, None, None, None]

    array = blob((20, 12, 12))
    for sliding, same in ((Sliding((12, 12, 12), 0.5, (0,)), True), (Sliding((12, 12, 12), 0.5), False)):
        straight = together(array, lopsided, sliding, 0)
        turned = together(array[:, ::-1], lopsided, sliding, 0)[:, ::-1]
        assert np.allclose(straight, turned, atol=1e-5) == same


def test_the_window_grows_over_a_volume_little_larger_than_the_patch() -> None:
    sliding = Sliding((40, 56, 40))
    assert sliding.window((35, 50, 35)) == (40, 56, 40)
    assert sliding.window((47, 56, 43)) == (48, 56, 48)
    assert sliding.window((200, 56, 40)) == (40, 56, 40)
    assert sliding.starts((35, 50, 35)) == ([-2], [-3], [-2])
    assert Sliding((40, 56, 40), fixed=True).window((47, 56, 43)) == (40, 56, 40)
    assert Sliding((40, 56, 40), multiple=(4, 4, 4)).window((41, 56, 43)) == (44, 56, 44)
    i, _, _ = sliding.starts((200, 56, 40))
    assert i[0] == 0
    assert i[-1] == 160
    assert max(np.diff(i)) <= 20
    assert Sliding((64, 64, 1)).starts((64, 64, 20))[2] == list(range(20))


@pytest.mark.parametrize(
    "network", [{}, {"patch": [1, 2]}, {"patch": [0, 1, 1]}, {"patch": [8, 8, 8], "overlap": 1},
                {"patch": [8, 8, 8], "mirror_axes": [3]}, {"patch": "x"}]
)  # fmt: skip
def test_a_senseless_card_is_a_bundle_error(network) -> None:
    with pytest.raises(BundleError, match="network"):
        Sliding.from_card(network)


def test_a_network_with_other_classes_than_its_card_is_refused() -> None:
    grid = Grid.from_parts((8, 8, 8))
    with pytest.raises(BundleError, match="classes"):
        predict_labels(Prepared(blob((8, 8, 8)), grid, grid), pointwise, Sliding((8, 8, 8)), (1,))


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    shape=st.tuples(*[st.integers(6, 20)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.5, 1.0, 1.3, 2.5])] * 3),
    aim=st.sampled_from([0.7, 1.0, 1.6]),
    tilt=st.floats(-0.3, 0.3),
)
def test_labels_come_back_where_they_were_seen(order, signs, shape, spacing, aim, tilt) -> None:
    """Prepare any orientation and spacing, threshold a ramp in patient space, and restore: no shift at all."""
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1.0]])
    directions = turn @ (np.eye(3)[:, list(order)] * np.array(signs))
    grid = Grid.from_parts(shape, spacing=spacing, origin=(3.0, -20.0, 7.0), directions=directions)
    lattice = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    middle = grid.to_patient((np.asarray(shape) - 1) / 2)
    for patient_axis in range(3):
        ramp = (grid.to_patient(lattice) - middle)[..., patient_axis]
        recipe = Normalisation("clip_zscore", low=-1e3, high=1e3)
        prepared = prepare_array(ramp, grid, Preparation(("image",), (aim,) * 3, (recipe,)))

        def steep(batch: np.ndarray) -> np.ndarray:
            return np.concatenate((np.zeros_like(batch), batch * 3), axis=1)

        labels = predict_labels(prepared, steep, Sliding((8, 8, 8)), (7,))
        assert labels.shape == grid.shape
        assert labels.dtype == np.uint8
        clear = np.abs(ramp) > 0.75 * max(*spacing, aim)
        assert (labels[clear] == np.where(ramp > 0, 7, 0)[clear]).all()


def smooth_shares(shape: tuple[int, int, int]) -> np.ndarray:
    logits = np.concatenate((blob(shape, 3) * 3, blob(shape, 4)[:1] * 3))
    logits[0] += 3  # mostly background, as in life
    return softmax(logits)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (0.4, 2.3, 1.0), (3.1, 0.6, 0.6)])
def test_planes_in_small_pieces_give_the_labels_of_the_whole(axis, scale, monkeypatch) -> None:
    source = Grid.from_parts((22, 25, 28), spacing=(1.0, 1.2, 0.9), directions=np.diag([-1.0, 1.0, -1.0]))
    grid = source.canonical()[0].resampled([s * f for s, f in zip(source.spacing, scale, strict=True)])
    shares = smooth_shares(grid.shape)
    whole = LabelWriter(grid, source, (1, 300), axis)
    moved = np.moveaxis(shares, 1 + axis, 1)
    whole.add(moved)
    monkeypatch.setattr(planes_module, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(planes_module, "_SURE", 2.0)  # no short cut over background
    pieces = LabelWriter(grid, source, (1, 300), axis)
    for start in range(0, moved.shape[1], 3):
        pieces.add(moved[:, start : start + 3])
    np.testing.assert_array_equal(whole.labels(), pieces.labels())
    assert set(np.unique(whole.labels())) == {0, 1, 300}
    assert whole.labels().dtype == np.uint16


def test_labels_need_every_plane() -> None:
    grid = Grid.from_parts((4, 4, 4))
    writer = LabelWriter(grid, grid, (1,), 0)
    writer.add(np.full((2, 3, 4, 4), 0.5, np.float32))
    with pytest.raises(RuntimeError, match="last plane"):
        writer.labels()


def test_stated_memory_grows_with_what_it_counts() -> None:
    ct = peak_memory_mb((512, 512, 800), 3)
    assert ct < 6 * 1024
    assert peak_memory_mb((512, 512, 1600), 3) > ct
    assert peak_memory_mb((512, 512, 800), 3, channels=2) > ct
    assert peak_memory_mb((512, 512, 800), 30) > ct
