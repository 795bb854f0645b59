"""A mixture of Gaussians over intensities, with a smooth shading of the image and neighbours that agree.

Sources: Wells et al., IEEE TMI 1996 (shading inside expectation-maximisation); Zhang, Brady and Smith, IEEE
TMI 2001 (hidden Markov random field); Zhang, IEEE TSP 1992 (its mean-field approximation); Ashburner and
Friston, NeuroImage 2005 (several Gaussians per class, spatial priors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np

from vesalius.classical.frame import Float32
from vesalius.core.grid import Array, FloatArray

_LEAST_VARIANCE = 1e-4  # of intensities scaled to 0..1
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Components of all classes, with independent channels.

    Args:
        means: (components, channels), intensities scaled to about 0..1.
        variances: (components, channels).
        weights: (components,) share of each component within its class.
        owner: (components,) position of its class.
    """

    means: FloatArray
    variances: FloatArray
    weights: FloatArray
    owner: Array

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return int(self.owner.max()) + 1

    def log_likelihood(self, values: FloatArray) -> FloatArray:
        """(components, n) log of weight times density at `values` (channels, n)."""
        result = np.empty((len(self.means), values.shape[1]))
        for number, (mean, variance) in enumerate(zip(self.means, self.variances, strict=True)):
            distance = ((values - mean[:, None]) ** 2 / variance[:, None]).sum(axis=0)
            scale = np.log(self.weights[number] + _TINY) - 0.5 * np.log(2 * np.pi * variance).sum()
            result[number] = scale - 0.5 * distance
        return result

    def of_classes(self, components: FloatArray) -> FloatArray:
        """(classes, n) log-sum of the components (components, n) of each class."""
        result = np.empty((self.classes, components.shape[1]))
        for number in range(self.classes):
            result[number] = np.logaddexp.reduce(components[self.owner == number], axis=0)
        return result


def learn_gaussians(samples: Sequence[FloatArray], counts: Sequence[int]) -> Gaussians:
    """Gaussians of each class from labelled voxels.

    Args:
        samples: per class (n, channels).
        counts: components per class; more than one are split along the first channel and then refined.
    """
    parts = [_split(np.asarray(values, dtype=np.float64), count)
             for values, count in zip(samples, counts, strict=True)]  # fmt: skip
    owner = np.concatenate([np.full(len(part[0]), number) for number, part in enumerate(parts)])
    means, variances, weights = (np.concatenate([part[n] for part in parts]) for n in range(3))
    return Gaussians(means, variances, weights, owner)


def _split(values: FloatArray, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means, variances and weights of `count` Gaussians fitted to (n, channels)."""
    groups = np.array_split(values[np.argsort(values[:, 0], kind="stable")], max(1, min(count, len(values))))
    means = np.stack([group.mean(axis=0) for group in groups])
    variances = np.stack([group.var(axis=0) + _LEAST_VARIANCE for group in groups])
    weights = np.full(len(groups), 1 / len(groups))
    for _ in range(15 if len(groups) > 1 else 0):
        mixture = Gaussians(means, variances, weights, np.zeros(len(groups), int))
        joint = mixture.log_likelihood(values.T)
        share = np.exp(joint - np.logaddexp.reduce(joint, axis=0))
        total = share.sum(axis=1) + _TINY
        means = share @ values / total[:, None]
        variances = share @ values**2 / total[:, None] - means**2 + _LEAST_VARIANCE
        weights = total / total.sum()
    return means, variances, weights


def shading_basis(shape: Sequence[int], order: int) -> FloatArray:
    """(functions, voxels) products of Legendre polynomials up to a total `order`, the constant first."""
    axes = [np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1) for size in shape]
    index = [number for number, size in enumerate(shape) if size > 1]
    functions = [np.ones(tuple(shape))]
    for degree in range(1, order + 1):
        for chosen in combinations_with_replacement(index, degree):
            function = np.ones(tuple(shape))
            for axis in set(chosen):
                polynomial = np.polynomial.legendre.Legendre.basis(chosen.count(axis))(axes[axis])
                function = function * polynomial.reshape([-1 if a == axis else 1 for a in range(len(shape))])
            functions.append(function)
    return np.stack(functions).reshape(len(functions), -1)


def neighbours(shares: Float32, spacing: Sequence[float]) -> Float32:
    """Mean of the face neighbours' (classes, i, j, k) shares, nearer ones counting more; edges count as none.

    Args:
        shares: probabilities.
        spacing: mm along i, j, k; a neighbour's weight falls with its distance.
    """
    total = np.zeros_like(shares)
    weights = [min(spacing) / size if count > 1 else 0.0
               for size, count in zip(spacing, shares.shape[1:], strict=True)]  # fmt: skip
    for axis, weight in enumerate(weights, start=1):
        if weight == 0:
            continue
        upper = (slice(None),) * axis + (slice(1, None),)
        lower = (slice(None),) * axis + (slice(None, -1),)
        total[lower] += weight * shares[upper]
        total[upper] += weight * shares[lower]
    return np.asarray(total / max(2 * sum(weights), _TINY), dtype=np.float32)


def mean_field(energy: Float32, spacing: Sequence[float], strength: float, sweeps: int) -> Float32:
    """Class probabilities where every voxel leans towards its neighbours' class (Potts model).

    Args:
        energy: (classes, i, j, k) log of likelihood times prior.
        spacing: mm along i, j, k.
        strength: how much the log odds rise when all neighbours agree; 0 leaves voxels independent.
        sweeps: mean-field updates.
    """
    shares = softmax(energy)
    for _ in range(sweeps if strength > 0 else 0):
        shares = softmax(energy + np.float32(strength) * neighbours(shares, spacing))
    return shares


def softmax(energy: Float32) -> Float32:
    """Probabilities along the first axis."""
    shares = np.exp(energy - energy.max(axis=0))
    shares /= shares.sum(axis=0)
    return np.asarray(shares, dtype=np.float32)


@dataclass(frozen=True)
class FitRules:
    """How the mixture adapts to one image.

    Args:
        rounds: iterations of expectation-maximisation.
        strength: see `mean_field`.
        shading: total order of the polynomial by which brightness may drift; 0 for none.
        trust: weight of what training patients' intensities were like, as a share of a component's voxels.
    """

    rounds: int = 20
    strength: float = 3.0
    shading: int = 3
    trust: float = 0.1


def adapt(
    values: Float32, start: Gaussians, prior: Float32, spacing: Sequence[float], rules: FitRules
) -> tuple[Gaussians, Float32]:
    """Fit means, variances and shading to one image.

    Args:
        values: (channels, i, j, k), about 0..1.
        start: the training patients' Gaussians.
        prior: (classes, i, j, k) probabilities before looking at intensities.
        spacing: mm along i, j, k.
        rules: how.

    Returns:
        The Gaussians, and the shading (channels, i, j, k), about 1: divided by it, the image has none.
    """
    shape = values.shape[1:]
    flat = values.reshape(len(values), -1).astype(np.float64)
    basis = shading_basis(shape, rules.shading)
    field = np.zeros((len(values), len(basis)))
    field[:, 0] = _gain(flat, start, prior.reshape(len(prior), -1).astype(np.float64))
    log_prior = np.log(prior + _TINY)
    shares = prior
    gaussians = start
    for _ in range(rules.rounds):
        corrected = flat / np.maximum(field @ basis, 0.1)
        components = gaussians.log_likelihood(corrected)
        classes = gaussians.of_classes(components)
        energy = log_prior + classes.reshape(prior.shape)
        energy += rules.strength * neighbours(shares, spacing)
        shares = softmax(energy.astype(np.float32))
        within = np.exp(components - classes[gaussians.owner])
        within *= shares.reshape(len(shares), -1)[gaussians.owner]
        gaussians = _updated(corrected, within, start, rules.trust)
        if rules.shading:
            field = _shaded(flat, within, gaussians, basis)
    shading = np.maximum(field @ basis, 0.1).astype(np.float32)
    return gaussians, shading.reshape(values.shape)


def _gain(values: FloatArray, start: Gaussians, prior: FloatArray) -> FloatArray:
    """(channels,) brightness of the image relative to training, judged by where the prior expects what.

    A prior that is the same everywhere says nothing about brightness: 1.
    """
    if prior.std(axis=1).max() < 1e-3:
        return np.ones(len(values))
    means = np.zeros((start.classes, len(values)))
    np.add.at(means, start.owner, start.means * start.weights[:, None])
    expected = means.T @ prior
    return np.asarray(np.clip((values * expected).sum(axis=1) / (expected**2).sum(axis=1), 0.5, 2.0))


def _updated(values: FloatArray, shares: FloatArray, start: Gaussians, trust: float) -> Gaussians:
    """Means and variances of the weighted voxels, drawn towards the training patients'."""
    total = shares.sum(axis=1)
    extra = trust * total.mean()
    count = (total + extra)[:, None]
    means = (shares @ values.T + extra * start.means) / count
    square = (shares @ (values**2).T + extra * (start.variances + start.means**2)) / count
    variances = np.maximum(square - means**2, _LEAST_VARIANCE)
    weights = total + extra
    for number in range(start.classes):
        mine = start.owner == number
        weights[mine] /= weights[mine].sum()
    return replace(start, means=means, variances=variances, weights=weights)


def _shaded(values: FloatArray, shares: FloatArray, gaussians: Gaussians, basis: FloatArray) -> FloatArray:
    """Least-squares coefficients of the field that explains `values` as field times component mean."""
    thin = max(1, values.shape[1] // 40_000)  # a field of some twenty numbers needs no more voxels than that
    values, shares, basis = values[:, ::thin], shares[:, ::thin], basis[:, ::thin]
    result = np.zeros((len(values), len(basis)))
    for channel, row in enumerate(values):
        mean, variance = gaussians.means[:, channel], gaussians.variances[:, channel]
        square = (shares * (mean**2 / variance)[:, None]).sum(axis=0)
        cross = (shares * (mean / variance)[:, None]).sum(axis=0) * row
        normal = (basis * square) @ basis.T
        normal += 1e-3 * np.trace(normal) / len(basis) * np.diag([0.0] + [1.0] * (len(basis) - 1))
        result[channel] = np.linalg.solve(normal + _TINY * np.eye(len(basis)), basis @ cross)
        inside = square > 0.01 * square.max()
        result[channel] /= max(float((result[channel] @ basis)[inside].mean()), 0.1)
    return result
