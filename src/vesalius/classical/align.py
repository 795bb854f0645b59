"""Bring one image to another: an affine map first, then free displacements."""

from __future__ import annotations

from typing import Any

import numpy as np

from vesalius.classical.frame import Float32, Frame, Volume, budget_spacing, transform
from vesalius.classical.itk import THREADS, from_itk, simpleitk, to_itk
from vesalius.core.grid import FloatArray

_COARSE, _FINE = 12_000, 90_000  # voxels of the two levels of the affine search
_SAMPLES = 16_000  # voxels that the similarity is measured on
_STEPS = 60
_NARROW = 8  # an axis with fewer voxels than twice this is not halved


def align(fixed: Volume, moving: Volume, seed: int) -> FloatArray:
    """The affine map that takes frame coordinates of `fixed` to those of `moving`.

    Mutual information (Mattes et al., IEEE TMI 2003) on the first channel, coarse to fine, from the best of
    a few starts: the same place, the middle of the field of view, and its size.

    Returns:
        (d + 1, d + 1) homogeneous matrix.
    """
    matrix: FloatArray | None = None
    for voxels in (_COARSE, _FINE):
        still = fixed.at(budget_spacing(fixed.grid, voxels))
        other = moving.at(budget_spacing(moving.grid, voxels))
        starts = _starts(fixed, moving) if matrix is None else [matrix]
        matrix = _search(still, other, starts, seed)
    assert matrix is not None
    return matrix


def _starts(fixed: Volume, moving: Volume) -> list[FloatArray]:
    first, second = fixed.frame, moving.frame
    middle = [frame.corners.mean(axis=0) for frame in (first, second)]
    size = [np.asarray(frame.shape) * frame.spacing for frame in (first, second)]
    starts = [_about(middle[0], middle[1], np.eye(first.dimension))]
    if not (fixed.grid.placed and moving.grid.placed):
        return [*starts, _about(middle[0], middle[1], np.diag(size[1] / size[0]))]
    mass = [_centre_of_mass(volume) for volume in (fixed, moving)]
    return [*starts, _about(mass[0], mass[1], np.eye(first.dimension)), np.eye(first.dimension + 1)]


def _about(here: FloatArray, there: FloatArray, linear: FloatArray) -> FloatArray:
    matrix = np.eye(len(here) + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = there - linear @ here
    return matrix


def _centre_of_mass(volume: Volume) -> FloatArray:
    frame = volume.frame
    weight = volume.array[0].reshape(frame.shape)
    weight = weight - weight.min()
    index = [
        float((weight.sum(axis=tuple(a for a in range(weight.ndim) if a != axis)) * np.arange(size)).sum())
        for axis, size in enumerate(frame.shape)
    ]
    centre = transform(frame.affine, np.asarray(index)[None] / float(weight.sum()))
    return np.asarray(centre[0])


def _search(fixed: Volume, moving: Volume, starts: list[FloatArray], seed: int) -> FloatArray:
    """The best start, improved by regular steps along the gradient."""
    sitk = simpleitk()
    still, other = (to_itk(volume.array[0], volume.frame) for volume in (fixed, moving))
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(THREADS)
    method.SetMetricAsMattesMutualInformation(32)
    share = min(1.0, _SAMPLES / still.GetNumberOfPixels())
    method.SetMetricSamplingStrategy(method.RANDOM if share < 1 else method.NONE)
    if share < 1:
        method.SetMetricSamplingPercentage(share, seed % (2**31) + 1)
    method.SetInterpolator(sitk.sitkLinear)
    values = []
    for start in starts:
        method.SetInitialTransform(_affine(start, fixed.frame))
        try:
            values.append(method.MetricEvaluate(still, other))
        except RuntimeError:  # ITK's way to say that the images do not overlap at this start
            values.append(np.inf)
    best = starts[int(np.argmin(values))]
    moved = _affine(best, fixed.frame)
    step = float(fixed.frame.spacing.min())
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3 * step, _STEPS)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(moved, True)
    try:
        method.Execute(still, other)
    except RuntimeError:  # the images drifted apart: the start is the best that is known
        return best
    return _matrix(moved)


def _affine(matrix: FloatArray, frame: Frame) -> Any:
    """SimpleITK's form, turning about the middle of the field of view, where its parameters matter alike."""
    sitk = simpleitk()
    centre = frame.corners.mean(axis=0)
    linear = matrix[:-1, :-1]
    shift = matrix[:-1, -1] + linear @ centre - centre
    made = sitk.AffineTransform(len(centre))
    made.SetCenter(centre.tolist())
    made.SetMatrix(linear.ravel().tolist())
    made.SetTranslation(shift.tolist())
    return made


def _matrix(found: Any) -> FloatArray:
    size = found.GetDimension()
    linear = np.asarray(found.GetMatrix()).reshape(size, size)
    centre = np.asarray(found.GetCenter())
    return _about(centre, centre + np.asarray(found.GetTranslation()), linear)


def displace(fixed: Float32, moving: Float32, frame: Frame, steps: tuple[int, int]) -> FloatArray:
    """Small displacements that bring `moving` to `fixed`, both on one frame.

    Symmetric-forces demons (Thirion, MedIA 1998; Vercauteren et al., NeuroImage 2009) at half, then full
    resolution. Intensities must mean the same in both (see `local_contrast`).

    Args:
        fixed, moving: one channel with the frame's voxels.
        frame: where they stand.
        steps: iterations at half and at full resolution.

    Returns:
        (voxels, d) mm to add to a voxel's frame coordinates, in the order of a raveled array.
    """
    still, other = to_itk(fixed, frame), to_itk(moving, frame)
    halved = [2 if size >= 2 * _NARROW else 1 for size in frame.shape]
    levels = [(halved, steps[0])] if max(halved) > 1 else []
    field: Any = None
    for shrink, count in (*levels, ([1] * frame.dimension, steps[1])):
        field = _demons(_shrunk(still, shrink), _shrunk(other, shrink), field, count)
    full = from_itk(_like(field, still))
    return np.asarray(full, dtype=np.float64).reshape(-1, frame.dimension)


def _demons(still: Any, other: Any, field: Any, count: int) -> Any:
    sitk = simpleitk()
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfThreads(THREADS)
    demons.SetNumberOfIterations(count)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(1.0)
    demons.SetSmoothUpdateField(True)
    demons.SetUpdateFieldStandardDeviations(1.0)
    demons.SetMaximumUpdateStepLength(2.0)
    if field is None:
        return demons.Execute(still, other)
    return demons.Execute(still, other, _like(field, still))


def _shrunk(image: Any, factors: list[int]) -> Any:
    sitk = simpleitk()
    if max(factors) == 1:
        return image
    variance = [(0.5 * factor * size) ** 2 if factor > 1 else 0.0
                for factor, size in zip(factors, image.GetSpacing(), strict=True)]  # fmt: skip
    smooth = sitk.DiscreteGaussianImageFilter()
    smooth.SetNumberOfThreads(THREADS)
    smooth.SetVariance(variance)
    return sitk.Shrink(smooth.Execute(image), factors)


def _like(field: Any, image: Any) -> Any:
    """The displacement field on the image's lattice, its outermost vectors carried on beyond its edge."""
    sitk = simpleitk()
    if field.GetSize() == image.GetSize():
        return field
    move = sitk.ResampleImageFilter()
    move.SetNumberOfThreads(THREADS)
    move.SetReferenceImage(image)
    move.SetInterpolator(sitk.sitkLinear)
    move.SetUseNearestNeighborExtrapolator(True)
    return move.Execute(field)


def local_contrast(array: Float32, frame: Frame, width: float = 4.0) -> Float32:
    """Each channel relative to its surroundings' mean and deviation, so that two scanners' images compare.

    Args:
        array: (channels, i, j, k), zero mean and unit deviation as a whole.
        frame: the array's frame.
        width: standard deviation of the surroundings, in voxels of the finest axis.
    """
    from scipy import ndimage

    sigma = width * frame.spacing.min() / frame.spacing
    result = np.empty_like(array)
    for channel, out in zip(array, result, strict=True):
        values = channel.reshape(frame.shape)
        mean = ndimage.gaussian_filter(values, sigma, truncate=3.0)
        square = ndimage.gaussian_filter(values * values, sigma, truncate=3.0)
        deviation = np.sqrt(np.maximum(square - mean * mean, 1e-4))
        out[...] = ((values - mean) / (deviation + 0.2)).reshape(channel.shape)
    return result
