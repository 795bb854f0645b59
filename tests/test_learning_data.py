"""Prepared cases: written once, read patch by patch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning_cohort import small_cohort
from vesalius.core.progress import Silent
from vesalius.imaging.prepare import Normalisation, Preparation
from vesalius.learning import data
from vesalius.learning.data import Patches, class_table, prepare_cases, read_patch

PREPARATION = Preparation(("T1",), (1.0, 1.0, 1.0), (Normalisation("zscore"),))


def prepared(folder: Path, number: int = 4) -> list[data.PreparedCase]:
    cohort = small_cohort(folder, number)
    ready, left_out = prepare_cases(cohort, cohort.cases, PREPARATION, Silent())
    assert not left_out
    return ready


@settings(max_examples=30, deadline=None)
@given(start=st.tuples(*[st.integers(-30, 30)] * 3), size=st.tuples(*[st.integers(1, 24)] * 3))
def test_a_patch_equals_the_crop_of_the_edge_padded_volume(
    start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    volume = np.arange(2 * 9 * 11 * 13).reshape(2, 9, 11, 13)
    padded = np.pad(volume, [(0, 0), *[(60, 60)] * 3], mode="edge")
    crop = padded[(slice(None), *(slice(60 + a, 60 + a + n) for a, n in zip(start, size, strict=True)))]
    np.testing.assert_array_equal(read_patch(volume, start, size), crop)


def test_a_patch_from_the_compressed_file_equals_the_crop_of_the_whole(tmp_path: Path) -> None:
    case = prepared(tmp_path, 1)[0]
    whole, label = case.image()[:], case.label()[:]
    assert whole.dtype == np.float16 and label.dtype == np.uint8
    np.testing.assert_array_equal(read_patch(case.image(), (3, 2, 5), (8, 9, 7)), whole[:, 3:11, 2:11, 5:12])
    np.testing.assert_array_equal(read_patch(case.label(), (3, 2, 5), (8, 9, 7)), label[3:11, 2:11, 5:12])


def test_the_cache_is_written_once_and_survives_an_interruption(tmp_path: Path) -> None:
    case = prepared(tmp_path, 2)[0]
    image = case.folder / f"{case.id}.image.b2nd"
    written = image.stat().st_mtime_ns
    assert prepared(tmp_path, 2)[0].counts == case.counts
    assert image.stat().st_mtime_ns == written
    (case.folder / f"{case.id}.json").unlink()  # the JSON is written last: without it the case is not there
    prepared(tmp_path, 2)
    assert image.stat().st_mtime_ns != written


def test_a_batch_depends_on_the_seed_and_its_number_only(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    first, second = (Patches(ready, (12, 12, 12), 3, 7, {1: 1, 2: 2}) for _ in range(2))
    first.draw(0)
    for a, b in zip(first.draw(5), second.draw(5), strict=True):
        np.testing.assert_array_equal(a, b)
    other = Patches(ready, (12, 12, 12), 3, 8, {1: 1, 2: 2})
    assert not np.array_equal(first.draw(5)[0], other.draw(5)[0])


def test_every_case_is_drawn_once_per_epoch(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    patches = Patches(ready, (16, 18, 20), 2, 0, {1: 1, 2: 2})
    drawn = {image.tobytes() for number in range(2) for image in patches.draw(number)[0]}
    assert len(drawn) == len(ready)


def test_patches_on_foreground_hold_a_labelled_voxel(tmp_path: Path) -> None:
    patches = Patches(prepared(tmp_path), (6, 6, 6), 8, 0, {1: 1, 2: 2}, foreground=1.0)
    assert all((label > 0).any() for label in patches.draw(0)[1])


def test_held_and_mapped_cases_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(tmp_path)
    held = Patches(ready, (8, 8, 8), 4, 0, {1: 1, 2: 2}).draw(3)
    monkeypatch.setattr(data, "HELD_BYTES", 0)
    mapped = Patches(ready, (8, 8, 8), 4, 0, {1: 1, 2: 2}).draw(3)
    np.testing.assert_array_equal(held[0], mapped[0])
    np.testing.assert_array_equal(held[1], mapped[1])


def test_label_values_become_classes_and_the_ignored_one_the_last() -> None:
    table = class_table({4: 1, 9: 2}, 255)
    assert [int(table[value]) for value in (0, 4, 9, 255, 3)] == [0, 1, 2, 3, 0]
