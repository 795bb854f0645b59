"""Features that need no learning: a pyramid of derivatives, their energies, and where in the image they are.

For small cohorts a regularised linear model of such features is hard to beat, and its answer errs elsewhere
than a network's, so that the two together are better than either. After the scattering transform (Bruna and
Mallat, IEEE TPAMI 35:1872, 2013), with binomial smoothing and derivatives in place of wavelets, so that it
needs only convolutions and runs in 2D and 3D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST = 6  # the pyramid ends before an axis has fewer voxels
_LEVELS = 5
_MOST_VOXELS = 40_000  # larger images are halved first: the features shall take seconds
_CELLS = 3  # cells along each axis in which the energies are taken too
_BRIGHTNESS = (-1.75, -1.0, -0.25, 0.5, 1.25, 2.0)  # where brightness is counted, in deviations
_TINY = 1e-4


class FrozenFeatures(nn.Module):
    """(n, channels, *sizes) to features (n, f).

    Args:
        size: of the images, two or three axes.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.dims, left = len(size), list(size)
        self.levels, self.first = 1, 0
        while math.prod(left) > _MOST_VOXELS:
            left = [-(-n // 2) if n > 1 else 1 for n in left]
            self.first += 1
        while self.levels < _LEVELS and max(left) >= 2 * _SMALLEST:
            left = [-(-n // 2) if n > 1 else 1 for n in left]
            self.levels += 1

    def forward(self, image: Tensor) -> Tensor:
        """Logarithms of energies at every level, shares of brightness, and the coarse image itself."""
        for _ in range(self.first):
            image = self._halved(image)
        found = [self._cells(image, 2 * _CELLS - 2).flatten(1)]
        for centre in _BRIGHTNESS:
            share = torch.exp(-((image - centre) ** 2) / (2 * 0.375**2))
            found += [share.flatten(2).mean(2), self._cells(share, 2).flatten(1)]
        level = image
        second: Tensor | None = None
        for number in range(self.levels):
            energies = self._energies(level)
            found += self._summed(energies)
            if second is not None:
                found.append(torch.log(self._energies(second).flatten(2).mean(2) + _TINY))
            if number + 1 < self.levels:
                level = self._halved(level)
                strength = self._energies(level) if second is None else second
                second = self._halved(energies) if second is None else self._halved(strength)
        return torch.cat(found, 1)

    def _summed(self, energies: Tensor) -> list[Tensor]:
        flat = energies.flatten(2)
        mean, square = flat.mean(2), (flat * flat).mean(2)
        cells = torch.log(self._cells(energies, _CELLS) + _TINY).flatten(1)
        return [torch.log(mean + _TINY), torch.log(square + _TINY), cells]

    def _energies(self, level: Tensor) -> Tensor:
        """Rectified first derivatives along axes and diagonals, and both signs of the Laplacian."""
        steps = [self._derivative(level, axis) for axis in range(self.dims)]
        diagonal = [(steps[a] + sign * steps[b]) * 0.5**0.5 for a, b in self._pairs() for sign in (1, -1)]
        laplacian = level - self._smooth(level)
        return torch.cat([*(s.abs() for s in (*steps, *diagonal)), F.relu(laplacian), F.relu(-laplacian)], 1)

    def _pairs(self) -> list[tuple[int, int]]:
        return [(0, 1)] if self.dims == 2 else [(0, 1), (0, 2), (1, 2)]

    def _derivative(self, level: Tensor, axis: int) -> Tensor:
        """Half the difference of the two neighbours."""
        padded = self._padded(level, axis)
        size = level.shape[2 + axis]
        return (padded.narrow(2 + axis, 2, size) - padded.narrow(2 + axis, 0, size)) * 0.5

    def _smooth(self, level: Tensor) -> Tensor:
        """Binomial smoothing (1, 2, 1) along every axis."""
        for axis in range(self.dims):
            padded, size = self._padded(level, axis), level.shape[2 + axis]
            level = (padded.narrow(2 + axis, 0, size) + padded.narrow(2 + axis, 2, size)) * 0.25 + level * 0.5
        return level

    def _halved(self, level: Tensor) -> Tensor:
        pool = F.avg_pool2d if self.dims == 2 else F.avg_pool3d
        return pool(self._smooth(level), [min(2, n) for n in level.shape[2:]], ceil_mode=True)

    def _padded(self, level: Tensor, axis: int) -> Tensor:
        """One voxel more on both sides, repeated."""
        size = level.shape[2 + axis]
        first, last = level.narrow(2 + axis, 0, 1), level.narrow(2 + axis, size - 1, 1)
        return torch.cat([first, level, last], 2 + axis)

    def _cells(self, level: Tensor, cells: int) -> Tensor:
        """Means over so many equal cells along each axis; cells share what their bounds cut."""
        for axis in range(self.dims):
            size = level.shape[2 + axis]
            weights = cell_weights(int(size), min(cells, int(size)))
            last = 1 + self.dims
            level = (level.transpose(2 + axis, last) @ weights.T.to(level)).transpose(2 + axis, last)
        return level


def cell_weights(size: int, cells: int) -> Tensor:
    """(cells, size) weights that average an axis over equal stretches."""
    bounds = torch.linspace(0, size, cells + 1)
    voxels = torch.arange(size)
    upper = torch.minimum(bounds[1:, None], voxels + 1.0)
    lower = torch.maximum(bounds[:-1, None], voxels.float())
    return (upper - lower).clamp_min(0.0) * (cells / size)


class RandomCosines(nn.Module):
    """Standardised features, or cosines of random projections of them (Rahimi and Recht, NeurIPS 2007).

    Args:
        mean, deviation: (f,).
        directions: (d, f) and phases (d,); without them the features are only standardised.
    """

    mean: Tensor
    deviation: Tensor
    directions: Tensor | None
    phases: Tensor | None

    def __init__(
        self, mean: Tensor, deviation: Tensor, directions: Tensor | None = None, phases: Tensor | None = None
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("deviation", deviation), ("directions", directions), ("phases", phases)):
            self.register_buffer(name, value)

    def forward(self, features: Tensor) -> Tensor:
        """(n, f) to (n, f) or (n, d)."""
        standard = ((features - self.mean) / self.deviation).clamp(-5, 5)
        if self.directions is None or self.phases is None:
            return standard
        waves: Tensor = torch.cos(standard @ self.directions.T + self.phases) * (2.0 / len(self.phases)) ** 0.5
        return waves


class LinearHead(nn.Module):
    """Features to one number per class.

    Args:
        weight: (classes, f).
        bias: (classes,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, f) to (n, classes)."""
        answer: Tensor = features @ self.weight.T + self.bias
        return answer
