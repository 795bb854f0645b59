"""A regularised linear model of features that need no learning: fitted in seconds, judged by cross-validation.

The features (`networks.frozen`) are taken as they are, or through random cosines whose inner products are a
Gaussian kernel (Rahimi and Recht, NeurIPS 2007): the model then bends, and holds nothing of any patient.
Ridge regression on the classes is solved in closed form, so that width and penalty are chosen from many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vesalius.core.grid import Array
from vesalius.learning.classify_data import WholeCases
from vesalius.networks.backbone import JoinedFeatures
from vesalius.networks.frozen import FrozenFeatures, LinearHead, RandomCosines

_PENALTIES = (0.1, 0.3, 1.0, 3.0)
_WIDTHS = (0.5, 1.0, 2.0)  # of the kernel
_COSINES, _FEW, _COSINES_OF_FEW = 2048, 2500, 4096  # more random cosines where there are few images
_BATCH = 64
_MOST = 20_000  # images that the model is fitted on, drawn evenly
_HARMLESS = 1.01  # an error this much larger is chance

Folds = Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


@dataclass(frozen=True, eq=False)
class Frozen:
    """A fitted model of frozen features.

    Args:
        head: features to one number per class, about 0 to 1.
        outside: (cases, classes) what it says of cases that it was not fitted on; NaN where there is none.
        error: mean squared error of `outside`.
        mirror_axes: axes along which mirrored images did not make it worse.
        sentence: what it is.
        features: prepared images (n, channels, *sizes) to what the head takes.
        used: what became of weights that were given: "joined", "alone" or "no".
    """

    head: nn.Module
    outside: Array
    error: float
    mirror_axes: tuple[int, ...]
    sentence: str
    features: nn.Module
    used: str = "no"


def frozen_features(cases: WholeCases, module: nn.Module, mirrored: Sequence[int] = ()) -> Tensor:
    """(images, f) features of every image, mirrored along the axes given."""
    planar = cases.images.shape[-1] == 1
    found = []
    with torch.no_grad():
        for start in range(0, len(cases.images), _BATCH):
            batch = torch.from_numpy(np.asarray(cases.images[start : start + _BATCH], np.float32))
            batch = batch.squeeze(-1) if planar else batch
            found.append(module(batch.flip([2 + axis for axis in mirrored]) if mirrored else batch))
    return torch.cat(found)


def fit_frozen(
    cases: WholeCases, folds: Folds, axes: Sequence[int], seed: int, backbone: nn.Module | None = None
) -> Frozen:
    """Fit the model, and find out along which of `axes` images may be mirrored.

    A backbone's features are tried beside the others and alone; what errs least out of fold is taken.

    Mirroring is taken for harmless where a linear model that also learns from mirrored images, and asks about
    both, does not do worse out of fold: a class that depends on the side it is seen on loses by it.

    Args:
        cases: prepared images.
        folds: cases to learn from and cases to judge on.
        axes: candidates for mirroring.
        seed: of the random cosines.
        backbone: another extractor of features, for planes.
    """
    planar = cases.images.shape[-1] == 1
    own = FrozenFeatures(cases.images.shape[2:4] if planar else cases.images.shape[2:])
    taken: dict[tuple[int, int], Tensor] = {}

    def fitted(parts: list[nn.Module], used: str) -> Frozen:
        def view(axis: int) -> Tensor:
            for part in parts:
                if (id(part), axis) not in taken:
                    taken[id(part), axis] = frozen_features(cases, part, [axis] if axis >= 0 else [])
            found = [taken[id(part), axis] for part in parts]
            return found[0] if len(found) == 1 else torch.cat(found, 1)

        features = parts[0] if len(parts) == 1 else JoinedFeatures(parts)
        return _fit(view, features, used, cases, folds, axes, seed)

    best = fitted([own], "no")
    if backbone is None:
        return best
    without = best.error
    best = min((best, fitted([own, backbone], "joined"), fitted([backbone], "alone")), key=lambda found: found.error)
    said = {"joined": "joined with the others", "alone": "taken alone", "no": "left out, for they did not help"}
    sentence = f"Features of the pretrained weights were {said[best.used]}; without them the error was {without:.4f}."
    return replace(best, sentence=f"{best.sentence} {sentence}")


def _fit(
    view: Callable[[int], Tensor],
    features: nn.Module,
    used: str,
    cases: WholeCases,
    folds: Folds,
    axes: Sequence[int],
    seed: int,
) -> Frozen:
    """The model of the features that `view` gives, as they are (-1) or mirrored along an axis."""
    views = [view(-1)]
    mean, deviation = views[0].mean(0), views[0].std(0).clamp_min(1e-4)
    straight = RandomCosines(mean, deviation)
    best = _chosen(straight, 0.0, views, cases, folds)
    mirror: list[int] = []
    for axis in axes:
        more = [*views[:1], view(axis)]
        other = _chosen(straight, 0.0, more, cases, folds)
        if other.error <= best.error * _HARMLESS:
            mirror.append(axis)
            views.append(more[1])
    if mirror:
        best = min(best, _chosen(straight, 0.0, views, cases, folds), key=lambda choice: choice.error)
    number = _COSINES_OF_FEW if len(cases.images) <= _FEW else _COSINES
    for width in _WIDTHS:
        bend = _cosines(mean, deviation, width, number, seed)
        best = min(best, _chosen(bend, width, views, cases, folds), key=lambda choice: choice.error)
    return _final(best, cases, tuple(mirror), features, used)


@dataclass(frozen=True, eq=False)
class _Choice:
    """One way of fitting, and how it did out of fold."""

    error: float
    bend: RandomCosines
    width: float
    penalty: float
    outside: Array
    views: list[Tensor]


def _chosen(bend: RandomCosines, width: float, views: list[Tensor], cases: WholeCases, folds: Folds) -> _Choice:
    """The penalty with the smallest error out of fold."""
    with torch.no_grad():
        bent = [bend(view) for view in views]
    few = len(bent) * len(cases.images) <= bent[0].shape[1]
    answers = (_outside_few if few else _outside_many)(bent, width, cases, folds)
    errors = [_error(answer, cases.truth) for answer in answers]
    best = int(np.argmin(errors))
    return _Choice(errors[best], bend, width, _PENALTIES[best], answers[best], list(views))


def _strength(penalty: float, rows: int, width: float) -> float:
    return penalty * (0.3 * max(1.0, rows / 1000) if width else 0.1 * rows)


def _outside_many(bent: list[Tensor], width: float, cases: WholeCases, folds: Folds) -> list[Array]:
    """(cases, classes) out of fold for each penalty: one sum over all rows, from which each fold is taken."""
    answers = [np.full(cases.truth.shape, np.nan) for _ in _PENALTIES]
    chosen = _thinned(np.flatnonzero(cases.owner >= 0))

    def sums_of(images: npt.NDArray[np.int64]) -> _Sums:
        return _Sums.of([view[images] for view in bent], cases.truth[cases.owner[images]], images)

    whole = sums_of(chosen)
    for _, left_out in folds:
        judged = cases.of(left_out)
        sums = whole.without(sums_of(np.intersect1d(chosen, judged)))
        if not len(judged) or not sums.rows:
            continue
        for answer, penalty in zip(answers, _PENALTIES, strict=True):
            weight, bias = sums.solved(_strength(penalty, sums.rows, width))
            said = torch.stack([view[judged] @ weight + bias for view in bent]).mean(0).numpy()
            answer[left_out] = pooled(said, cases.owner[judged], left_out)
    return answers


def _outside_few(bent: list[Tensor], width: float, cases: WholeCases, folds: Folds) -> list[Array]:
    """The same where rows are fewer than features: by the inner products of rows."""
    answers = [np.full(cases.truth.shape, np.nan) for _ in _PENALTIES]
    rows = torch.cat(bent).double()
    rows = rows - rows.mean(0)
    products, views = rows @ rows.T, np.arange(len(bent))[:, None] * len(cases.images)
    for inside, left_out in folds:
        own, judged = ((views + cases.of(part)[None]).reshape(-1) for part in (inside, left_out))
        if not len(judged) or not len(own):
            continue
        owner = np.tile(cases.owner, len(bent))
        truth = torch.from_numpy(cases.truth[owner[own]]).double()
        values, vectors = torch.linalg.eigh(products[np.ix_(own, own)])
        turned, bias = vectors.T @ (truth - truth.mean(0)), truth.mean(0)
        asked = products[np.ix_(judged, own)] @ vectors
        for answer, penalty in zip(answers, _PENALTIES, strict=True):
            strength = _strength(penalty, len(own), width)
            said = (asked @ (turned / (values.clamp_min(0) + strength)[:, None]) + bias).numpy()
            answer[left_out] = pooled(said, owner[judged], left_out)
    return answers


def _error(answer: Array, truth: Array) -> float:
    known = np.isfinite(answer).all(1)
    return float(np.mean((answer[known] - truth[known]) ** 2)) if known.any() else math.inf


@dataclass(frozen=True, eq=False)
class _Sums:
    """What ridge regression needs to know of some images: sums that can be taken apart by fold.

    Args:
        images: their numbers.
        rows: count of rows, views included.
        square: (f, f) sum of outer products; cross: (f, classes); first: (f,); truth: (classes,).
    """

    images: npt.NDArray[np.int64]
    rows: int
    square: Tensor
    cross: Tensor
    first: Tensor
    truth: Tensor

    @classmethod
    def of(cls, bent: list[Tensor], shares: Array, images: npt.NDArray[np.int64]) -> _Sums:
        """Sums over views (rows, f) whose rows belong to `images`, with the truth (rows, classes) of each."""
        truth = torch.from_numpy(shares)
        f, classes = bent[0].shape[1], truth.shape[1]
        square, cross, first = torch.zeros(f, f), torch.zeros(f, classes), torch.zeros(f)
        for own in bent:
            square += own.T @ own
            cross += own.T @ truth
            first += own.sum(0)
        return cls(images, len(bent) * len(images), square, cross, first, len(bent) * truth.sum(0))

    def without(self, other: _Sums) -> _Sums:
        return _Sums(
            np.setdiff1d(self.images, other.images), self.rows - other.rows, self.square - other.square,
            self.cross - other.cross, self.first - other.first, self.truth - other.truth,
        )  # fmt: skip

    def solved(self, strength: float) -> tuple[Tensor, Tensor]:
        """Weights (f, classes) and bias (classes,)."""
        middle, bias = (self.first / self.rows).double(), (self.truth / self.rows).double()
        square = self.square.double() - self.rows * torch.outer(middle, middle)
        cross = self.cross.double() - self.rows * torch.outer(middle, bias)
        square.diagonal().add_(strength)
        factor, failed = torch.linalg.cholesky_ex(square)
        if int(failed):
            factor = torch.linalg.cholesky(square + 1e-3 * float(square.diagonal().mean()) * torch.eye(len(square)))
        weight = torch.cholesky_solve(cross, factor)
        return weight.float(), (bias - middle @ weight).float()


def pooled(values: Array, owner: npt.NDArray[np.int64], cases: npt.NDArray[np.int64]) -> Array:
    """(cases, classes) means of each case's images' values (images, classes)."""
    places = np.searchsorted(cases, owner)
    total = np.zeros((len(cases), values.shape[1]))
    np.add.at(total, places, values)
    counts = np.bincount(places, minlength=len(cases))[:, None]
    result: Array = total / np.maximum(counts, 1)
    return result


def _thinned(images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return images if len(images) <= _MOST else images[np.linspace(0, len(images) - 1, _MOST).astype(int)]


def _cosines(mean: Tensor, deviation: Tensor, width: float, number: int, seed: int) -> RandomCosines:
    """Random cosines whose inner products are a Gaussian kernel of this width."""
    own = torch.Generator().manual_seed(seed)
    f = len(mean)
    directions = torch.randn(number, f, generator=own) * math.sqrt(width / f)
    phases = torch.rand(number, generator=own) * 2 * math.pi
    return RandomCosines(mean, deviation, directions.half().float(), phases)


def _solved_few(rows: Tensor, truth: Array, strength: float) -> tuple[Tensor, Tensor]:
    """Weights (f, classes) and bias (classes,) where rows are fewer than features."""
    wanted, middle = torch.from_numpy(truth).double(), rows.mean(0).double()
    centred, bias = rows.double() - middle, wanted.mean(0)
    products = centred @ centred.T
    products.diagonal().add_(strength)
    weight = centred.T @ torch.linalg.solve(products, wanted - bias)
    return weight.float(), (bias - middle @ weight).float()


def _final(best: _Choice, cases: WholeCases, mirror: tuple[int, ...], features: nn.Module, used: str) -> Frozen:
    """The chosen model, fitted on everything."""
    own = _thinned(np.flatnonzero(cases.owner >= 0))
    with torch.no_grad():
        bent = [best.bend(view[own]) for view in best.views]
    strength = _strength(best.penalty, len(bent) * len(own), best.width)
    if len(bent) * len(own) <= bent[0].shape[1]:
        weight, bias = _solved_few(torch.cat(bent), cases.truth[np.tile(cases.owner[own], len(bent))], strength)
    else:
        weight, bias = _Sums.of(bent, cases.truth[cases.owner[own]], own).solved(strength)
    kind = f"a Gaussian kernel of width {best.width:g}" if best.width else "a linear model"
    number = best.views[0].shape[1]
    sentence = f"{number} frozen features in {kind}: mean squared error {best.error:.4f} out of fold."
    head = nn.Sequential(best.bend, LinearHead(weight.T.contiguous(), bias))
    return Frozen(head, best.outside, best.error, mirror, sentence, features, used)
