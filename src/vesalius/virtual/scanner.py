"""One virtual T1-weighted acquisition: grid, contrast, receive field and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.core.grid import Grid
from vesalius.virtual.anatomy import Anatomy, Floats
from vesalius.virtual.head import Head, Sampled, sample_head

_FIELD_OF_VIEW = (172.0, 212.0, 176.0)  # mm along x, y, z; holds the brain, and most of skull and scalp
_CENTRE = (0.0, 18.0, 8.0)  # mm, LPS, of the field of view, from the anterior commissure

# Rows run along the first axis, columns along the second, slices follow their cross product (all LPS).
_PLANES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
}


@dataclass(frozen=True)
class Scanner:
    """How one series was acquired.

    Args:
        grid: voxels of the series; i along a row, j down a column, k from slice to slice.
        plane: "axial", "sagittal" or "coronal".
        levels: signal of grey matter, white matter, CSF, skull and scalp; white matter is about 1.
        bias: strength of the receive field, log scale.
        noise: standard deviation of the noise in both channels, as a share of white matter's signal.
        gain: stored units of white matter.
        noise_seed: draws the receive field and the noise.
    """

    grid: Grid
    plane: str
    levels: tuple[float, float, float, float, float]
    bias: float
    noise: float
    gain: float
    noise_seed: int


def _grid(rng: np.random.Generator, plane: str) -> Grid:
    """A grid over the field of view: in-plane 1.9 to 2.2 mm, slices of 2 to 2.8 mm, a little oblique."""
    row, column = (np.asarray(axis) for axis in _PLANES[plane])
    directions = np.stack([row, column, np.cross(row, column)], axis=1)
    in_plane = float(np.round(rng.uniform(1.9, 2.2), 2))
    spacing = np.array([in_plane, in_plane, float(np.round(rng.uniform(2.0, 2.8), 1))])
    extent = np.abs(directions.T @ np.asarray(_FIELD_OF_VIEW))
    shape = np.ceil(extent / spacing).astype(int)
    angle = np.deg2rad(rng.normal(0.0, 3.0))
    oblique = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    directions = oblique @ directions
    origin = np.asarray(_CENTRE) - directions @ (spacing * (shape - 1) / 2)
    return Grid.from_parts(shape, spacing=spacing.tolist(), origin=origin, directions=directions)


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """A random acquisition; most are axial."""
    plane = str(rng.choice(["axial", "sagittal", "coronal"], p=[0.6, 0.3, 0.1]))
    white = rng.uniform(0.92, 1.0)
    return Scanner(
        grid=_grid(rng, plane),
        plane=plane,
        levels=(
            float(white * rng.uniform(0.54, 0.70)),
            float(white),
            float(rng.uniform(0.16, 0.32)),
            float(rng.uniform(0.06, 0.16)),
            float(rng.uniform(0.9, 1.4)),
        ),
        bias=float(rng.uniform(0.05, 0.22)),
        noise=float(rng.uniform(0.02, 0.06)),
        gain=float(rng.uniform(400, 1600)),
        noise_seed=int(rng.integers(2**31)),
    )


def _receive_field(scanner: Scanner, rng: np.random.Generator) -> Floats:
    """(i, j, k) factor around 1 that changes slowly over the head: a random quadratic on a log scale."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in scanner.grid.shape), indexing="ij")
    x, y, z = axes
    terms = [x, y, z, x * y, y * z, x * z, x * x, y * y, z * z]
    log = sum(weight * term for weight, term in zip(rng.standard_normal(len(terms)), terms, strict=True))
    log = (log - np.mean(log)) / np.std(log)
    return np.asarray(np.exp(scanner.bias * log), dtype=np.float32)


def acquire(head: Head, scanner: Scanner, anatomy: Anatomy) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Scan a head.

    Returns:
        Signal (i, j, k) in the scanner's units and truth (i, j, k): 0 outside, else the values of
        `anatomy.TISSUES`, the tissue that has the greatest share of the voxel.
    """
    sampled = sample_head(head, anatomy, scanner.grid)
    rng = np.random.default_rng(scanner.noise_seed)
    signal = _signal(sampled, scanner) * _receive_field(scanner, rng)
    real, imaginary = rng.standard_normal((2, *scanner.grid.shape), dtype=np.float32) * scanner.noise
    magnitude = np.hypot(signal + real, imaginary)  # magnitude images have Rician noise
    shares = np.concatenate([1.0 - sampled.tissues.sum(axis=0, keepdims=True), sampled.tissues])
    return np.asarray(magnitude * scanner.gain, dtype=np.float32), shares.argmax(axis=0).astype(np.uint8)


def _signal(sampled: Sampled, scanner: Scanner) -> Floats:
    """(i, j, k) noiseless signal: each voxel the mean of its tissues' signals, weighted by their shares."""
    grey, white, fluid, skull, scalp = scanner.levels
    tissues = sampled.tissues
    signal = grey * tissues[0] + white * tissues[1] + fluid * tissues[2]
    signal = signal + (white - fluid) * sampled.texture + skull * sampled.skull + scalp * sampled.scalp
    return np.asarray(np.maximum(signal, 0.0), dtype=np.float32)
