"""Laying a template of the head onto a scan: an exhaustive coarse search, then least squares.

The search compares the template with the scan at every translation at once, for a list of turns and
sizes, by masked normalised cross-correlation in the Fourier domain (Padfield, "Masked object registration
in the Fourier domain", IEEE TIP 21:2706, 2012). It needs no starting point, so neither a far-away origin
nor a neck or shoulders in the field of view can mislead it. The refinement fits the scan's intensities
inside the template's mask by a few functions of the template's (its intensity, the square of it, and, where
asked for, its intensity times position, which takes up coil shading) and maximises the share of variance
explained; nothing outside the mask counts, so skull and neck do not matter. Both usually look at local
structure (`Volume.levelled`) rather than at grey values.

All positions are patient millimetres, LPS. A pose is a (4, 4) matrix from template to patient millimetres.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.optimize

from vesalius.core.grid import Array, FloatArray, Grid, reorient

LATTICE_MM = 6.0
AROUND_MM = 20.0
_WORKING_MM = 2.0
_EDGE_MM = 8.0
_REACH_MM = 70.0  # typical distance of a brain voxel from its centre: makes turns and shifts comparable

Freedom = Literal["rigid", "similarity", "affine"]


@dataclass(frozen=True)
class Volume:
    """Intensities on a grid of canonical axes.

    Args:
        values: (i, j, k) float32.
        grid: where they stand.
    """

    values: Array
    grid: Grid

    @classmethod
    def of_scan(cls, array: Array, grid: Grid) -> Volume:
        """A scan as the registration works on it: canonical axes, about 2 mm, clipped, finite.

        Args:
            array: (i, j, k), any numeric type.
            grid: the scan's own grid.
        """
        small = cls.coarse(array, grid)
        low, high = np.percentile(small.values, (0.1, 99.8))
        scale = high - low if high > low else 1.0
        return cls(((np.clip(small.values, low, high) - low) / scale).astype(np.float32), small.grid)

    @classmethod
    def coarse(cls, array: Array, grid: Grid) -> Volume:
        """A scan's own values on canonical axes, about 2 mm apart, 0 where they are not finite."""
        canonical, order, flips = grid.canonical()
        turned = reorient(array, order, flips)
        factors = [max(1, int(_WORKING_MM / size + 0.25)) for size in canonical.spacing]
        small, grid = _block_mean(turned, canonical, factors)
        return cls(np.nan_to_num(small, nan=0.0, posinf=0.0, neginf=0.0), grid)

    def smoothed(self, sigma_mm: float) -> Volume:
        """The same volume after a Gaussian of this width (mm)."""
        sigma = [sigma_mm / size for size in self.grid.spacing]
        return Volume(scipy.ndimage.gaussian_filter(self.values, sigma, mode="nearest"), self.grid)

    def levelled(self, sigma_mm: float, around_mm: float) -> Volume:
        """The smoothed volume, less its local mean and over its local deviation (Gaussian, `around_mm`).

        What is left is structure: coil shading, and how bright neck or scalp are as a whole, drop out.
        """
        values = self.smoothed(sigma_mm).values
        sigma = [around_mm / size for size in self.grid.spacing]
        values = values - scipy.ndimage.gaussian_filter(values, sigma, mode="nearest")
        power = scipy.ndimage.gaussian_filter(values**2, sigma, mode="nearest")
        floor = 1e-6 + 0.05 * float(power.max())
        return Volume((values / np.sqrt(power + floor)).astype(np.float32), self.grid)

    @cached_property
    def _flat(self) -> Array:
        return np.ascontiguousarray(self.values, dtype=np.float32).ravel()

    def at(self, position: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Trilinear values at patient positions (n, 3) and their derivatives (n, 3) per mm.

        Positions outside the voxel centres get value and derivative of the nearest place inside.
        """
        shape = np.asarray(self.grid.shape)
        index = np.clip(self.grid.to_index(position), 0, shape - 1 - 1e-6)
        base = np.minimum(index.astype(np.int64), np.maximum(shape - 2, 0))
        part = (index - base).astype(np.float32)
        strides = np.array([shape[1] * shape[2], shape[2], 1])
        steps = np.where(shape > 1, strides, 0)
        start = base @ strides
        corner = {
            (a, b, c): self._flat[start + a * steps[0] + b * steps[1] + c * steps[2]]
            for a in (0, 1)
            for b in (0, 1)
            for c in (0, 1)
        }
        u, v, w = part.T
        edge = {(a, b): corner[a, b, 0] * (1 - w) + corner[a, b, 1] * w for a in (0, 1) for b in (0, 1)}
        face = {a: edge[a, 0] * (1 - v) + edge[a, 1] * v for a in (0, 1)}
        value = face[0] * (1 - u) + face[1] * u
        along_k = [
            (corner[a, 0, 1] - corner[a, 0, 0]) * (1 - v) + (corner[a, 1, 1] - corner[a, 1, 0]) * v for a in (0, 1)
        ]
        slope = np.stack(
            [
                face[1] - face[0],
                (edge[0, 1] - edge[0, 0]) * (1 - u) + (edge[1, 1] - edge[1, 0]) * u,
                along_k[0] * (1 - u) + along_k[1] * u,
            ],
            axis=1,
        )
        return value.astype(np.float64), slope @ np.linalg.inv(self.grid.affine[:3, :3])

    def seen(self, position: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How far patient positions (n, 3) lie in the field of view, and the derivatives (n, 3) per mm.

        0 outside, rising to 1 over the outermost _EDGE_MM, so that a score has no jump where a point
        leaves the field of view.
        """
        shape = np.asarray(self.grid.shape)
        index = self.grid.to_index(position)
        margin = np.minimum(index + 0.5, shape - 0.5 - index)
        rate = np.asarray(self.grid.spacing) / _EDGE_MM
        ramp = np.clip(margin * rate, 0.0, 1.0)
        rising = np.where((ramp > 0) & (ramp < 1), np.where(index * 2 < shape - 1, rate, -rate), 0.0)
        others = ramp[:, [1, 2, 0]] * ramp[:, [2, 0, 1]]
        return ramp.prod(axis=1), (rising * others) @ np.linalg.inv(self.grid.affine[:3, :3])

    def on(self, position: FloatArray, shape: tuple[int, int, int]) -> tuple[Array, Array]:
        """Values (float32) and whether they are inside (bool) at positions (n, 3), in this shape."""
        index = self.grid.to_index(position)
        inside = np.all((index >= -0.5) & (index <= np.asarray(self.grid.shape) - 0.5), axis=1)
        return self.at(position)[0].astype(np.float32).reshape(shape), inside.reshape(shape)


def _block_mean(array: Array, grid: Grid, factors: list[int]) -> tuple[Array, Grid]:
    """Means over blocks of `factors` voxels, slab by slab, with the grid of the blocks' centres."""
    counts = [max(1, size // factor) for size, factor in zip(array.shape, factors, strict=True)]
    factors = [min(factor, size) for size, factor in zip(array.shape, factors, strict=True)]
    kept = [slice(0, count * factor) for count, factor in zip(counts, factors, strict=True)]
    out = np.empty(counts, dtype=np.float32)
    for i in range(counts[0]):
        slab = array[i * factors[0] : (i + 1) * factors[0], kept[1], kept[2]].astype(np.float32).mean(axis=0)
        out[i] = slab.reshape(counts[1], factors[1], counts[2], factors[2]).mean(axis=(1, 3))
    affine = np.array(grid.affine)
    affine[:3, 3] = grid.to_patient([(factor - 1) / 2 for factor in factors])
    affine[:3, :3] = grid.affine[:3, :3] * factors
    i, j, k = counts
    return out, Grid((i, j, k), affine)


def rotation(pitch: float, roll: float, yaw: float) -> FloatArray:
    """Turns about the left-right, front-back and foot-head axes (degrees), as a (3, 3) matrix."""
    around = []
    for axis, angle in enumerate(np.radians((pitch, roll, yaw))):
        turn, (a, b) = np.eye(3), [other for other in range(3) if other != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        around.append(turn)
    return np.asarray(around[2] @ around[1] @ around[0])


@dataclass(frozen=True)
class Candidate:
    """A pose with its score: correlation after `search`, share of variance explained after `refine`."""

    pose: FloatArray
    score: float


class Search:
    """The coarse, exhaustive search of one scan for a template.

    Args:
        scan: what is searched.
        template: intensities, brain bright on dark.
        mask: where the template counts (above 0.5), on the template's grid.
        least_overlap: share of the mask that must lie inside the scan.
        either_sign: whether a template that is dark where the scan is bright fits as well.
    """

    def __init__(
        self, scan: Volume, template: Volume, mask: Volume, least_overlap: float = 0.65, either_sign: bool = False
    ) -> None:
        self.template, self.mask = template.levelled(LATTICE_MM / 2, AROUND_MM), mask
        self.least_overlap, self.either_sign = least_overlap, either_sign
        shape = np.asarray(scan.grid.shape)
        corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]) * (shape - 1)
        ends = scan.grid.to_patient(corners)
        self.origin = ends.min(axis=0)
        sizes = [int(size) for size in np.ceil((ends.max(axis=0) - self.origin) / LATTICE_MM) + 1]
        values, valid = scan.levelled(LATTICE_MM / 2, AROUND_MM).on(*_lattice(self.origin, sizes))
        shade = values.max() or 1.0
        values = np.where(valid, values / shade, 0.0).astype(np.float32)
        inside = np.argwhere(mask.values > 0.5)
        self.centre = mask.grid.to_patient(inside.mean(axis=0))
        reach = np.linalg.norm(mask.grid.to_patient(inside) - self.centre, axis=1).max()
        self.half = int(np.ceil(reach * 1.15 / LATTICE_MM))
        self.padded = [scipy.fft.next_fast_len(size + 2 * self.half, real=True) for size in sizes]
        self.sizes = sizes
        self.spectra = [self._spectrum(part) for part in (valid.astype(np.float32), values, values**2)]

    def _spectrum(self, array: Array) -> Array:
        return np.asarray(scipy.fft.rfftn(array, s=self.padded))

    def _correlate(self, spectrum: Array, kernel: Array) -> Array:
        """Sums of products with the kernel centred at every lattice point of the scan, and half around."""
        full = scipy.fft.irfftn(spectrum * np.conj(kernel), s=self.padded)
        return np.asarray(full)

    def best(self, turn: FloatArray) -> Candidate:
        """The best translation for one turn-and-size matrix (3, 3)."""
        width = 2 * self.half + 1
        offsets, shape = _lattice(np.full(3, -self.half * LATTICE_MM), [width] * 3)
        source = offsets @ np.linalg.inv(turn).T + self.centre
        values, valid = self.template.on(source, shape)
        weights, _ = self.mask.on(source, shape)
        weights = np.where(valid & (weights > 0.5), 1.0, 0.0).astype(np.float32)
        values = values * weights
        count_all = float(weights.sum())
        kernels = [self._spectrum(part) for part in (weights, values, values**2)]
        valid_f, scan_f, square_f = self.spectra
        count = np.maximum(self._correlate(valid_f, kernels[0]), 1e-3)
        scan_sum = self._correlate(scan_f, kernels[0])
        template_sum = self._correlate(valid_f, kernels[1])
        cross = self._correlate(scan_f, kernels[1]) - scan_sum * template_sum / count
        scan_var = self._correlate(square_f, kernels[0]) - scan_sum**2 / count
        template_var = self._correlate(valid_f, kernels[2]) - template_sum**2 / count
        floor = 1e-4 * count_all
        score = cross / np.sqrt(np.maximum(scan_var, floor) * np.maximum(template_var, floor))
        score = np.abs(score) if self.either_sign else score
        score[count < self.least_overlap * count_all] = -1.0
        peak = np.unravel_index(int(np.argmax(score)), score.shape)
        corner = [int(at) - (size if at >= own else 0) for at, size, own in
                  zip(peak, self.padded, self.sizes, strict=True)]  # fmt: skip
        place = self.origin + (np.asarray(corner) + self.half) * LATTICE_MM
        pose = np.eye(4)
        pose[:3, :3] = turn
        pose[:3, 3] = place - turn @ self.centre
        return Candidate(pose, float(score[peak]))

    def over(self, turns: Iterable[FloatArray]) -> list[Candidate]:
        """The best candidate of every turn, best first."""
        return sorted((self.best(turn) for turn in turns), key=lambda found: -found.score)


def _lattice(origin: FloatArray, sizes: list[int]) -> tuple[FloatArray, tuple[int, int, int]]:
    """Positions (n, 3) of a lattice of LATTICE_MM along the patient axes, and its shape."""
    i, j, k = sizes
    index = np.stack(np.meshgrid(range(i), range(j), range(k), indexing="ij"), axis=-1).reshape(-1, 3)
    return index * LATTICE_MM + origin, (i, j, k)


@dataclass(frozen=True)
class Samples:
    """Template points that count in the refinement.

    Args:
        points: (n, 3) template mm.
        basis: (n, m) functions of the template that may explain the scan; the first is constant 1.
        weights: (n,) importance of each point.
    """

    points: FloatArray
    basis: FloatArray
    weights: FloatArray

    @classmethod
    def of(cls, template: Volume, weights: Volume, spacing_mm: float, shading: bool = True) -> Samples:
        """Points about every `spacing_mm` where `weights` (on the template's grid) is positive."""
        step = [max(1, round(spacing_mm / size)) for size in template.grid.spacing]
        chosen = np.zeros(template.grid.shape, dtype=bool)
        chosen[:: step[0], :: step[1], :: step[2]] = True
        index = np.argwhere(chosen & (weights.values > 0))
        points = template.grid.to_patient(index)
        tone = template.values[tuple(index.T)].astype(np.float64)
        columns = [np.ones_like(tone), tone, tone**2]
        if shading:
            columns += list((tone[:, None] * (points - points.mean(axis=0)) / _REACH_MM).T)
        return cls(points, np.stack(columns, axis=1), weights.values[tuple(index.T)].astype(np.float64))

    def within(self, centre: FloatArray, radius_mm: float) -> Samples:
        """The samples no further than this from a template position (mm)."""
        near = np.linalg.norm(self.points - centre, axis=1) <= radius_mm
        return Samples(self.points[near], self.basis[near], self.weights[near])


def agreement(samples: Samples, scan: Volume, pose: FloatArray) -> tuple[float, float, FloatArray]:
    """How much of the scan's variance the template explains at this pose.

    Returns:
        Share of variance (0 to 1), share of the template seen (0 to 1), and the gradient of their product
        by the pose's upper (3, 4) part.
    """
    places = samples.points @ pose[:3, :3].T + pose[:3, 3]
    value, slope = scan.at(places)
    visible, drift = scan.seen(places)
    weight = visible * samples.weights
    total, whole = weight.sum(), samples.weights.sum()
    seen = float(total / whole)
    if seen < 0.2:
        return 0.0, seen, np.zeros((3, 4))
    weighted = samples.basis * weight[:, None]
    normal = weighted.T @ samples.basis + 1e-9 * total * np.eye(samples.basis.shape[1])
    residual = value - samples.basis @ np.linalg.solve(normal, weighted.T @ value)
    centred = value - (weight @ value) / total
    variance = weight @ centred**2 + 1e-9 * total
    share = float(1.0 - weight @ residual**2 / variance)
    by_value = 2.0 * weight * (centred * (1.0 - share) - residual) / variance
    by_weight = (centred**2 * (1.0 - share) - residual**2) / variance
    force = slope * (seen * by_value)[:, None]
    force += drift * (samples.weights * (seen * by_weight + share / whole))[:, None]
    gradient = np.concatenate([force.T @ samples.points, force.sum(axis=0)[:, None]], axis=1)
    return share, seen, gradient


def refine(samples: Samples, scan: Volume, start: FloatArray, freedom: Freedom, steps: int = 40) -> Candidate:
    """Climb from a pose to the nearest maximum of `agreement` times the share of points seen.

    Args:
        samples: what of the template counts.
        scan: smoothed to about the samples' spacing.
        start: (4, 4) pose.
        freedom: what may change relative to `start`: rigid, similarity (one size), or affine.
        steps: at most so many iterations of L-BFGS.
    """
    centre = np.average(samples.points, axis=0, weights=samples.weights)
    size = {"rigid": 6, "similarity": 7, "affine": 12}[freedom]

    def moved(parameters: FloatArray) -> FloatArray:
        change = np.eye(3)
        if freedom == "affine":
            change = change + parameters[3:].reshape(3, 3)
        else:
            change = rotation(*np.degrees(parameters[3:6]))
            change = change * (np.exp(parameters[6]) if freedom == "similarity" else 1.0)
        pose = np.eye(4)
        pose[:3, :3] = change @ start[:3, :3]
        anchor = start[:3, :3] @ centre + start[:3, 3] + parameters[:3] * _REACH_MM
        pose[:3, 3] = anchor - pose[:3, :3] @ centre
        return pose

    def cost(parameters: FloatArray) -> tuple[float, FloatArray]:
        share, seen, gradient = agreement(samples, scan, moved(parameters))
        slopes = np.empty(size)
        for number in range(size):
            step = np.zeros(size)
            step[number] = 1e-5
            change = (moved(parameters + step) - moved(parameters - step))[:3] / 2e-5
            slopes[number] = (gradient * change).sum()
        return -share * seen, -slopes

    found = scipy.optimize.minimize(
        cost, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": 1e-6}
    )
    return Candidate(moved(found.x), float(-found.fun))
