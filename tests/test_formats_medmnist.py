"""MedMNIST files: images in order with labels and the official split, planes, colour and volumes."""

import numpy as np
import pytest

import vesalius as vs
from vesalius.core.errors import UnusableInput
from vesalius.formats.find import find_scans
from vesalius.formats.medmnist import read_npz


def write(path, *, parts=("train", "val", "test"), shape=(12, 10), count=3, labels=1, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for part in parts:
        arrays[f"{part}_images"] = rng.integers(0, 255, (count, *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 2, (count, labels), dtype=np.uint8)
    np.savez_compressed(path, **arrays)
    return arrays


def test_images_come_in_order_with_labels_and_parts(tmp_path):
    arrays = write(tmp_path / "set.npz")
    scans = list(find_scans(tmp_path / "set.npz"))
    assert [scan.name for scan in scans] == [f"set.npz#{number}" for number in range(1, 10)]
    assert [scan.answers["official_split"] for scan in scans] == ["train"] * 6 + ["test"] * 3
    assert [scan.answers["label"] for scan in scans[6:]] == arrays["test_labels"][:, 0].tolist()
    pixels = scans[1].pixels.read()
    assert pixels.shape == (1, 10, 12, 1) == (1, *scans[1].grid.shape)
    assert np.array_equal(pixels[0, :, :, 0].T, arrays["train_images"][1])


def test_without_a_test_part_the_validation_part_is_measured_on(tmp_path):
    write(tmp_path / "set.npz", parts=("train", "val"))
    parts = [scan.answers["official_split"] for scan in read_npz(tmp_path / "set.npz", "set.npz")]
    assert parts == ["train"] * 3 + ["test"] * 3


@pytest.mark.parametrize(("shape", "read"), [((8, 9, 3), (3, 9, 8, 1)), ((6, 8, 9), (1, 9, 8, 6))])
def test_colour_and_volumes_have_their_shapes(tmp_path, shape, read):
    arrays = write(tmp_path / "set.npz", shape=shape, labels=2)
    scan = read_npz(tmp_path / "set.npz", "set.npz")[0]
    assert scan.pixels.read().shape == read
    assert (scan.channels, *scan.grid.shape) == read
    assert set(scan.answers) == {"label_0", "label_1", "official_split"}
    first = arrays["train_images"][0]
    expected = (
        np.moveaxis(first, -1, 0).transpose(0, 2, 1)[..., None] if read[0] == 3 else first.transpose(2, 1, 0)[None]
    )
    assert np.array_equal(scan.pixels.read(), expected)


def test_every_image_is_a_patient_of_its_own_and_the_split_is_kept(tmp_path):
    arrays = write(tmp_path / "set.npz", shape=(40, 44), count=6)
    cohort = vs.ingest(tmp_path / "set.npz", into=tmp_path / "study")
    assert len(cohort.cases) == len(cohort.patients) == 18
    split = vs.split(cohort).split
    assert split is not None and split.given
    assert sorted(split.parts.values()).count("test") == 6
    values = [case.covariates["label"] for case in cohort]
    assert sum(values) == sum(int(arrays[f"{part}_labels"].sum()) for part in ("train", "val", "test"))


@pytest.mark.parametrize("kind", ["objects", "text", "other", "labels"])
def test_other_files_are_set_aside(tmp_path, kind):
    path = tmp_path / "set.npz"
    if kind == "objects":
        np.savez(path, train_images=np.array([{"a": 1}], dtype=object))
    elif kind == "text":
        path.write_text("no archive")
    elif kind == "other":
        np.savez(path, images=np.zeros((2, 3, 3)))
    else:
        np.savez(path, train_images=np.zeros((2, 3, 3), np.uint8), train_labels=np.zeros((5, 1)))
    with pytest.raises(UnusableInput):
        read_npz(path, "set.npz")


def test_labels_may_be_a_plain_list(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (4, 12, 10), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=np.array([0, 1, 1, 0]))
    scans = read_npz(tmp_path / "set.npz", "set.npz")
    assert [scan.answers["label"] for scan in scans] == [0, 1, 1, 0]
