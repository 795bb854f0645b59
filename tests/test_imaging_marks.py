"""Marks of a device are found and filled, and what was imaged stays."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.imaging.marks import hide_marks
from vesalius.imaging.prepare import Normalisation
from vesalius.imaging.whole import WholePreparation, prepare_whole


@dataclass(frozen=True)
class Held:
    """Pixels in memory."""

    array: Any

    def read(self) -> Any:
        return self.array


def tissue(number: int, size: tuple[int, int] = (320, 260)) -> Any:
    """Speckle of a few pixels, darker with depth, with bright interfaces across the beam and a dark cyst."""
    rng = np.random.default_rng(number)
    grain = ndimage.gaussian_filter(rng.normal(size=size), (2.0, 1.2)) * 3
    lines = ndimage.gaussian_filter(rng.normal(size=size), (25, 1.6)) * 18
    plane = (95 + 22 * grain + 25 * lines) * np.linspace(1.1, 0.5, size[1])[None]
    i, j = np.indices(size)
    inside = ((i - size[0] / 2) / 40) ** 2 + ((j - size[1] / 2) / 30) ** 2 < 1
    return np.where(inside, 12 + 3 * grain, plane).clip(6, 255).astype(np.uint8)


def fan(plane: Any) -> tuple[Any, Any]:
    """The plane seen through a curved transducer, black beyond; and where it is seen."""
    i, j = np.indices(plane.shape)
    across, down = i - plane.shape[0] / 2, j + 0.35 * plane.shape[1]
    distance, angle = np.hypot(across, down), np.abs(np.arctan2(across, down))
    seen = (distance > 0.4 * plane.shape[1]) & (distance < 1.3 * plane.shape[1]) & (angle < 0.55)
    return np.where(seen, plane, 0).astype(np.uint8), seen


def callipers(plane: Any, number: int = 0) -> tuple[Any, Any]:
    """Two crosses joined by a dotted line, a scale with ticks, and a letter; and where all that was drawn."""
    rng, drawn = np.random.default_rng(number), plane.copy()
    i, j = (int(n) for n in (rng.integers(110, 140), rng.integers(120, 150)))
    for a in (i, i + 60):
        drawn[a - 5 : a + 6, j] = drawn[a, j - 5 : j + 6] = 255
    drawn[i : i + 60 : 3, j] = 255
    drawn[4:6, 20:240] = drawn[4:11, 20:240:20] = 230  # a scale with ticks
    drawn[40:42, 225:240] = drawn[40:50, 238:240] = 245  # an L
    return drawn, drawn != plane


def hidden(plane: Any) -> Any:
    return hide_marks(plane[None, ..., None])[0, ..., 0]


def similarity(a: Any, b: Any, where: Any) -> float:
    """Peak signal to noise in dB."""
    return float(10 * np.log10(255**2 / max(np.mean((a[where].astype(float) - b[where]) ** 2), 1e-9)))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("seen_by_fan", [True, False])
def test_strokes_go_and_tissue_stays(number: int, seen_by_fan: bool) -> None:
    plane, seen = fan(tissue(number)) if seen_by_fan else (tissue(number), np.ones((320, 260), bool))
    drawn, where = callipers(plane, number)
    after = hidden(drawn)
    assert similarity(after, plane, seen & ~where) > 35
    before, left = similarity(drawn, plane, where), similarity(after, plane, where)
    assert left > before + 8
    assert (after[where].astype(int) - plane[where] > 60).mean() < 0.05
    assert (after[~seen] > 0).sum() <= 15  # of 27 000, where the scale meets the fan


@pytest.mark.parametrize("number", range(4))
def test_what_has_no_marks_stays_as_it_is(number: int) -> None:
    for plane in (tissue(number), fan(tissue(number))[0]):
        assert np.array_equal(hidden(plane), plane)
    blank, small = np.full((1, 90, 80, 1), 7, np.uint8), callipers(tissue(number))[0][None, :40, :40, None]
    assert hide_marks(blank) is blank
    assert hide_marks(small) is small


def test_calcifications_are_no_strokes() -> None:
    plane = tissue(3)
    for i, j in ((100, 60), (108, 66), (103, 74), (220, 120)):
        plane[i : i + 2, j : j + 2] = 255
    assert np.array_equal(hidden(plane), plane)


def test_coloured_marks_go_from_grey_planes() -> None:
    plane = np.repeat(tissue(5)[None, ..., None], 3, 0)
    drawn = plane.copy()
    drawn[:, 60:64, 80:140, 0] = np.array([90, 200, 60], np.uint8)[:, None, None]
    after = hide_marks(drawn)
    assert np.ptp(after.astype(int), axis=0).max() == 0
    assert similarity(after, plane, np.ones(plane.shape, bool)) > 28


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_number_types_and_large_planes(kind: Any) -> None:
    drawn, where = callipers(fan(tissue(1))[0])
    scaled = drawn.astype(kind) * 7 - (0 if kind is np.uint16 else 300)
    after = hidden(scaled)
    assert after.dtype == kind
    assert np.array_equal(after != scaled, hidden(drawn) != drawn)
    large = np.kron(drawn, np.ones((8, 8), np.uint8))
    assert (hidden(large)[np.kron(where, np.ones((8, 8), bool))] > 200).mean() < 0.1


def test_it_is_fast_and_always_the_same() -> None:
    drawn = np.kron(callipers(tissue(2))[0], np.ones((2, 2), np.uint8))[:640, :480]
    first = hidden(drawn)
    began = time.process_time()
    assert np.array_equal(hidden(drawn), first)
    assert time.process_time() - began < 0.5  # about 40 ms; the machine may be busy


def test_the_card_says_it_and_the_preparation_does_it() -> None:
    drawn, _ = callipers(fan(tissue(0))[0])
    plain = WholePreparation((), (160, 130, 1), (1.0, 1.0, 1.0), 1, Normalisation("unit", mean=0.5, std=0.25))
    assert "hide_marks" not in plain.as_json()
    hiding = WholePreparation.from_json({**plain.as_json(), "hide_marks": True})
    assert WholePreparation.from_json(hiding.as_json()) == hiding

    def prepared(array: Any, preparation: WholePreparation) -> Any:
        grid = Grid.from_parts((320, 260, 1), placed=False, unit="pixel")
        held = Held(array[None, ..., None])
        return prepare_whole(Image("a", grid, "image", Kind.INTENSITY, "US", 1, held), preparation)

    assert np.array_equal(prepared(drawn, hiding), prepared(hidden(drawn), plain))
    assert not np.array_equal(prepared(drawn, hiding), prepared(drawn, plain))
