"""From slices to a grid, or to the reason why there is none.

Standard: PS3.3 C.7.6.2 (image plane). A grid is only made where the positions of all slices say so: slice
thickness and file order decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.core.errors import GeometryError
from vesalius.core.grid import FloatArray, Grid
from vesalius.formats.dicom_frames import Frame
from vesalius.formats.scan import check_size

_SAME_PLACE_MM = 1e-3  # positions closer than this along the normal are the same slice
_EVEN_STEP = 0.25  # of the slice step, between two slices: positions rounded to 0.1 mm at 1 mm stay below
_EVEN_PLACE = 0.15  # of the slice step, between a slice and its place on the best line
_EVEN_MM = 0.02
_UNIT = 1e-2  # how far direction cosines may be from unit length and right angle
_TILT_DEGREES = 0.2  # below: rounding; above: the stack is sheared
_MOST_TILT_DEGREES = 45.0
_EXPORT_AGAIN = "Export the complete series again from its source."


def normal_of(frame: Frame) -> FloatArray:
    """Unit normal of the slice plane: row direction x column direction (LPS).

    Raises:
        GeometryError: the directions are missing, not of unit length, or not at right angles.
    """
    if frame.orientation is None:
        raise GeometryError("Its slices state no orientation.", remedy=_EXPORT_AGAIN)
    row, column = np.asarray(frame.orientation[:3]), np.asarray(frame.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1.0) for length in lengths) > _UNIT or abs(float(row @ column)) > _UNIT:
        raise GeometryError("Its orientation is not made of two unit vectors at right angles.", remedy=_EXPORT_AGAIN)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def along_normal(frames: Sequence[Frame]) -> FloatArray:
    """Distance of each slice along the first one's normal (mm): (n,).

    Raises:
        GeometryError: a slice states no position.
    """
    normal = normal_of(frames[0])
    missing = sum(frame.position is None for frame in frames)
    if missing:
        raise GeometryError(
            f"{missing} of its {len(frames)} slices state no position, so they cannot be put in order.",
            remedy=_EXPORT_AGAIN,
        )
    return np.array([np.asarray(frame.position) @ normal for frame in frames])


def duplicates(frames: Sequence[Frame]) -> int:
    """How many slices lie where another one lies already."""
    if len(frames) < 2:
        return 0
    steps = np.diff(np.sort(along_normal(frames)))
    return int((steps < _SAME_PLACE_MM).sum())


def stack(frames: Sequence[Frame], shape: tuple[int, int], frame_of_reference: str) -> tuple[Grid, list[int]]:
    """The grid of slices in any order, and their order along its k axis.

    Slices that are shifted against each other evenly (gantry tilt) give an honestly sheared affine.

    Args:
        frames: with position and orientation.
        shape: columns (i), rows (j).
        frame_of_reference: UID, or "".

    Raises:
        GeometryError: slices are missing, doubled, unevenly spaced or out of line.
    """
    spacing = frames[0].spacing
    if spacing is None or min(spacing) <= 0:
        raise GeometryError("Its pixel spacing is missing or not positive.", remedy=_EXPORT_AGAIN)
    if max(frames[0].position or (0.0,), key=abs, default=0.0) > 1e6:
        raise GeometryError("Its position lies kilometres away from the patient.", remedy=_EXPORT_AGAIN)
    check_size((*shape, len(frames)))
    heights = along_normal(frames)
    order = [int(index) for index in np.argsort(heights, kind="stable")]
    positions = np.array([frames[index].position for index in order], dtype=np.float64)
    step = _step(frames, heights[order], positions)
    affine = np.eye(4)
    orientation = np.asarray(frames[0].orientation)
    affine[:3, 0] = orientation[:3] / np.linalg.norm(orientation[:3]) * spacing[1]
    affine[:3, 1] = orientation[3:] / np.linalg.norm(orientation[3:]) * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return Grid((*shape, len(frames)), affine, frame_of_reference or None), order


def shear_degrees(grid: Grid) -> float:
    """Angle between the slice step and the slice normal; 0 for a straight stack, gantry tilt otherwise."""
    directions = grid.directions
    normal = np.cross(directions[:, 0], directions[:, 1])
    cosine = abs(float(directions[:, 2] @ normal / np.linalg.norm(normal)))
    angle = float(np.degrees(np.arccos(min(cosine, 1.0))))
    return angle if angle > _TILT_DEGREES else 0.0


def _step(frames: Sequence[Frame], heights: FloatArray, positions: FloatArray) -> FloatArray:
    """The vector from one slice to the next (mm, LPS)."""
    normal = normal_of(frames[0])
    if len(frames) == 1:
        thickness = frames[0].thickness
        return normal * (thickness if thickness and thickness > 0 else 1.0)
    _check_even(heights)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    line = positions[0] + np.arange(len(positions))[:, None] * step
    apart = np.linalg.norm(positions - line, axis=1)
    if apart.max() > max(2 * _EVEN_PLACE * float(np.linalg.norm(step)), _EVEN_MM):
        raise GeometryError(
            f"Its slices do not lie in a line: slice {int(np.argmax(apart)) + 1} of {len(positions)} is "
            f"{apart.max():.2f} mm off.",
            remedy=_EXPORT_AGAIN,
        )
    rise = float(step @ normal)
    angle = float(np.degrees(np.arccos(min(rise / float(np.linalg.norm(step)), 1.0))))
    if angle > _MOST_TILT_DEGREES:
        raise GeometryError(
            f"Its slices are shifted against each other by {angle:.0f} degrees, more than a gantry tilts.",
            remedy=_EXPORT_AGAIN,
        )
    return step if angle > _TILT_DEGREES else normal * rise


def _check_even(heights: FloatArray) -> None:
    """Refuse doubled, missing and unevenly spaced slices, naming them in their order along the stack."""
    steps = np.diff(heights)
    doubled = np.flatnonzero(steps < _SAME_PLACE_MM)
    count = len(heights)
    if len(doubled):
        raise GeometryError(
            f"{len(doubled)} of its {count} slices lie where another one does (the first at position "
            f"{doubled[0] + 1} of {count}, {heights[doubled[0]]:.2f} mm along the stack), and nothing in the "
            "headers tells them apart.",
            remedy="Remove the copies, or separate the volumes into folders.",
        )
    if is_even(heights):
        return
    usual = _usual(steps)
    odd = np.flatnonzero(np.abs(steps - usual) > max(_EVEN_STEP * usual, _EVEN_MM))
    place = int(odd[0]) if len(odd) else int(np.argmax(np.abs(steps - usual)))
    times = steps[odd] / usual
    whole = bool((np.abs(times - np.rint(times)) < _EVEN_STEP).all() and (times > 1.5).all())
    where = (
        f"between slices {place + 1} and {place + 2} of {count} (at {heights[place]:.2f} mm and "
        f"{heights[place + 1]:.2f} mm along the stack)"
    )
    if len(odd) and whole:
        lost = int(np.rint(times - 1).sum())
        raise GeometryError(
            f"{lost} slice{'s are' if lost > 1 else ' is'} missing, the first {where}.", remedy=_EXPORT_AGAIN
        )
    raise GeometryError(
        f"Its slices are unevenly spaced: {steps.min():.2f} to {steps.max():.2f} mm, first {where}.",
        remedy="Export the series again without gaps, or split it where the spacing changes.",
    )


def is_even(heights: FloatArray) -> bool:
    """Whether sorted distances (n,) along the normal are evenly spaced, rounding in the header aside."""
    steps = np.diff(heights)
    if len(steps) < 2:
        return True
    usual = _usual(steps)
    ranks = np.arange(len(heights))
    line = np.polynomial.Polynomial.fit(ranks, heights, 1)(ranks)
    step_off = float(np.abs(steps - usual).max())
    place_off = float(np.abs(heights - line).max())
    return step_off <= max(_EVEN_STEP * usual, _EVEN_MM) and place_off <= max(_EVEN_PLACE * usual, _EVEN_MM)


def _usual(steps: FloatArray) -> float:
    """The lower median: of two different steps the smaller one, next to which a slice is missing."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])
