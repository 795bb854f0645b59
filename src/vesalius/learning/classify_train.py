"""Training the networks of a classification, all side by side, and asking them."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vesalius.core.grid import Array
from vesalius.core.progress import Progress, Silent
from vesalius.imaging.augmentation import AugmentationSettings
from vesalius.learning.classify_changes import draw_changes
from vesalius.learning.classify_data import WholeCases
from vesalius.learning.classify_frozen import Folds, pooled
from vesalius.learning.classify_plan import EFFICIENTNET, ClassifyPlan
from vesalius.learning.loop import Lesson, Schedule, State, train
from vesalius.networks.classifier import ResidualClassifier, residual_shape, settle
from vesalius.networks.efficientnet import EfficientNetClassifier

Network = ResidualClassifier | EfficientNetClassifier

_LONGEST_GRADIENT = 2.0
_MOST_OFTEN = 4.0  # images of rare classes are drawn at most this much more often
_BEYOND = 10_000_000  # batches from this number on are no training's
_SETTLED = 12  # batches that normalisation is settled on
_ASKED = 64
_VIEWS = 4
_NEIGHBOUR = 0.15  # share of an ordinal class that each neighbouring class gets


class Drawer:
    """Draws batches of images with their truth; a batch depends on nothing but the seed and its number.

    Args:
        cases: prepared images.
        chosen: cases to draw from.
        batch: images per batch.
        seed: of every draw.
        kind: of the target; ordinal truth is shared with the neighbouring classes.
        smooth: share of the truth that is spread over all classes.
    """

    def __init__(
        self, cases: WholeCases, chosen: npt.NDArray[np.int64], batch: int, seed: int, kind: str, smooth: float
    ) -> None:
        self.cases, self.batch, self.seed = cases, batch, seed
        images = cases.of(chosen)
        truth = cases.truth[cases.owner[images]]
        share = truth.mean(0)
        # Rare classes are drawn more often, by the root of how much rarer they are: between fair to classes
        # and fair to cases; the calibration puts the true shares back.
        often = np.sqrt(share.max() / np.maximum(share, 1e-6))
        weight = np.where(truth > 0, often, 1.0).max(1) if kind != "multilabel" else np.ones(len(images))
        self.images, self.often = images, np.minimum(weight / weight.min(), _MOST_OFTEN)
        self.truth = softened(cases.truth, kind, smooth)
        self.planar = cases.images.shape[-1] == 1
        self._epochs: dict[int, npt.NDArray[np.int64]] = {}
        self._length = int(self.often.sum())

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number`: images (batch, channels, *sizes) float32 and truth (batch, classes)."""
        places = range(number * self.batch, (number + 1) * self.batch)
        chosen = np.array([self._epoch(place // self._length)[place % self._length] for place in places])
        array = np.asarray(self.cases.images[np.sort(chosen)], np.float32)[np.argsort(np.argsort(chosen))]
        images = torch.from_numpy(array)
        return images.squeeze(-1) if self.planar else images, self.truth[self.cases.owner[chosen]]

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """Images in the order of one epoch, each as often as its weight says."""
        if epoch not in self._epochs:
            rng = np.random.default_rng([self.seed, epoch, 2])
            whole = np.floor(self.often).astype(int)
            left = self.often - whole
            times = whole.copy()
            missing = self._length - int(whole.sum())
            if missing > 0:
                extra = rng.choice(len(left), missing, replace=False, p=left / left.sum())
                times[extra] += 1
            self._epochs = {epoch - 1: self._epochs.get(epoch - 1, np.zeros(0, np.int64))}
            self._epochs[epoch] = rng.permutation(np.repeat(self.images, times))
        return self._epochs[epoch]


def softened(truth: npt.NDArray[np.float32], kind: str, smooth: float) -> Tensor:
    """(cases, classes) truth that a network is taught."""
    soft = torch.from_numpy(truth)
    classes = soft.shape[1]
    if kind == "ordinal":
        left, right = F.pad(soft[:, 1:], (0, 1)), F.pad(soft[:, :-1], (1, 0))
        soft = soft + _NEIGHBOUR * (left + right)
        soft = soft / soft.sum(1, keepdim=True)
    return soft * (1 - smooth) + smooth * (0.5 if kind == "multilabel" else 1 / classes)


def new_network(plan: ClassifyPlan, channels: int, classes: int, seed: int) -> Network:
    """Fresh weights, or those that the plan starts from, the same for the same seed."""
    if plan.network == EFFICIENTNET:
        return EfficientNetClassifier(channels, classes)
    dims = 2 if plan.planar else 3
    shape = residual_shape(plan.size, plan.width, blocks=plan.blocks, norm=plan.norm)
    with _SEEDING:  # torch's generator is one for all threads
        torch.manual_seed(seed)
        return ResidualClassifier(channels, classes, shape, dims)


_SEEDING = threading.Lock()


def lesson_of(plan: ClassifyPlan, drawer: Drawer, kind: str, seed: int, stopped: threading.Event) -> Lesson:
    """One step: draw, change, cross-entropy, AdamW; it depends on the seed and its number alone."""

    def lesson(network: nn.Module, optimiser: torch.optim.Optimizer, number: int) -> float:
        if stopped.is_set():
            raise KeyboardInterrupt
        images, truth = changed(plan, drawer, seed, number)
        device = next(network.parameters()).device
        images, truth = images.to(device), truth.to(device)
        if plan.channels_last and plan.planar:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(plan.device, torch.bfloat16) if plan.bfloat16 else contextlib.nullcontext():
            logits = network(images)
        loss = classification_loss(logits.float(), truth, kind)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _LONGEST_GRADIENT)
        optimiser.step()
        return float(loss.detach())

    return lesson


def changed(plan: ClassifyPlan, drawer: Drawer, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Batch `number` with its random changes."""
    images, truth = drawer.draw(number)
    own = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    drawn = draw_changes(plan.changes, len(images), images.shape[1], images.shape[2:], own)
    return drawn.apply(images, truth)


def _moved(plan: ClassifyPlan, drawer: Drawer, seed: int, number: int) -> Tensor:
    """The images of batch `number`, only moved: more like what the bedside sees than those of training."""
    images, _ = drawer.draw(number)
    own = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    return draw_changes(plan.changes, len(images), images.shape[1], images.shape[2:], own).move(images)


def classification_loss(logits: Tensor, truth: Tensor, kind: str) -> Tensor:
    """Cross-entropy with soft truth (n, classes); one for each class where several may be there."""
    if kind == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, truth)
    return -(truth * F.log_softmax(logits, 1)).sum(1).mean()


def schedule_of(plan: ClassifyPlan, number: int, seed: int, classes: int) -> Schedule:
    """What the loop does for network `number`."""
    turns = plan.turns[number] if number < len(plan.turns) else ()
    return Schedule(
        steps=plan.steps, rate=plan.rate, weight_decay=plan.weight_decay, warm_up=plan.warm_up, size=plan.size,
        spacing=(1.0, 1.0, 1.0), classes=classes, bfloat16=plan.bfloat16,
        channels_last=plan.channels_last and plan.planar, device=plan.device, seed=seed,
        augmentation=AugmentationSettings(), turns=turns,
    )  # fmt: skip


def side_by_side(jobs: Sequence[Callable[[threading.Event], Any]], threads: int) -> list[Any]:
    """Run jobs at once, each in a thread with so many of torch's own.

    Convolutions of small images do not gain from a second processor, but a second network does.

    Raises:
        KeyboardInterrupt: once every job has come to its end.
    """
    stopped = threading.Event()

    def run(job: Callable[[threading.Event], Any]) -> Any:
        torch.set_num_threads(threads)
        try:
            return job(stopped)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            wait(futures)
        except KeyboardInterrupt:
            stopped.set()
            raise
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, KeyboardInterrupt)):
        raise error  # what stopped the others comes first
    return [future.result() for future in futures]


def train_networks(
    plan: ClassifyPlan,
    cases: WholeCases,
    parts: Sequence[npt.NDArray[np.int64]],
    kind: str,
    seed: int,
    work: Path,
    progress: Progress,
    *,
    seconds_left: Callable[[], float] | None,
    resume: bool,
    saved: Callable[[], None],
) -> tuple[list[Network], list[State]]:
    """Train one network on each part, all side by side, until the time is over.

    Args:
        plan: what to do.
        cases: prepared images.
        parts: cases that each network learns from.
        kind: of the target.
        seed: of weights, batches and changes.
        work: folder of the checkpoints.
        progress: told about the first network.
        seconds_left: for training; None runs the plan's steps whatever time they take.
        resume: go on from checkpoints.
        saved: called whenever a checkpoint was written.
    """
    channels, classes = cases.images.shape[1], cases.truth.shape[1]

    def job(number: int) -> Callable[[threading.Event], tuple[Network, State]]:
        def run(stopped: threading.Event) -> tuple[Network, State]:
            own = seed * 1009 + number
            drawer = Drawer(cases, parts[number], plan.batch, own, kind, plan.smooth)
            network = new_network(plan, channels, classes, own)
            average, state = train(
                network, None, schedule_of(plan, number, own, classes), work / f"network{number}.safetensors",
                progress if number == 0 else Silent(), deadline=seconds_left, resume=resume, saved=saved,
                lesson=lesson_of(plan, drawer, kind, own, stopped),
            )  # fmt: skip
            average = average.cpu().float()
            if isinstance(average, ResidualClassifier):
                settle(average, [_moved(plan, drawer, own, _BEYOND + n) for n in range(_SETTLED)])
            return average.eval(), state

        return run

    found = side_by_side([job(number) for number in range(len(parts))], plan.threads)
    return [network for network, _ in found], [state for _, state in found]


def seconds_side_by_side(
    plan: ClassifyPlan, channels: int, classes: int, kind: str, networks: int, enough: float
) -> float:
    """Seconds per step of each network while so many train at once, measured on noise.

    Args:
        plan: candidate.
        channels, classes: of the networks.
        kind: of the target.
        networks: how many train at once.
        enough: seconds after which no further step is taken.
    """
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2 * plan.batch, channels, *plan.size)).astype(np.float16)
    truth = np.eye(classes, dtype=np.float32)[np.arange(len(images)) % classes]
    numbers = np.arange(len(images))
    noise = WholeCases(images, numbers, truth, tuple(map(str, numbers)), numbers)

    def job(number: int) -> Callable[[threading.Event], list[float]]:
        def run(stopped: threading.Event) -> list[float]:
            drawer = Drawer(noise, numbers, plan.batch, number, kind, plan.smooth)
            network = new_network(plan, channels, classes, number).to(plan.device).train()
            if plan.channels_last and plan.planar:
                network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            optimiser = torch.optim.AdamW(network.parameters(), plan.rate)
            lesson = lesson_of(plan, drawer, kind, number, stopped)
            began, spent = time.perf_counter(), []
            for step in range(5):
                start = time.perf_counter()
                lesson(network, optimiser, step)
                spent.append(time.perf_counter() - start)
                if time.perf_counter() - began > enough:
                    break
            return spent[1:] or spent

        return run

    found = side_by_side([job(number) for number in range(networks)], plan.threads)
    return float(np.median(np.concatenate(found)))


def views_of(mirror_axes: Sequence[int]) -> list[tuple[int, ...]]:
    """The axes that are mirrored in each of the views, four at most, that a prediction is the mean of."""
    axes = sorted(mirror_axes)
    return [view for n in range(len(axes) + 1) for view in itertools.combinations(axes, n)][:_VIEWS]


def ask_networks(
    plan: ClassifyPlan, cases: WholeCases, networks: Sequence[Network], folds: Folds, kind: str
) -> list[Array]:
    """For each network what it says of the cases that it left out, (cases, classes); all at once."""

    def job(number: int) -> Callable[[threading.Event], Array]:
        return lambda stopped: answers(networks[number], plan, cases, folds[number][1], kind)

    return side_by_side([job(number) for number in range(len(networks))], plan.threads)


@torch.no_grad()
def answers(network: Network, plan: ClassifyPlan, cases: WholeCases, chosen: npt.NDArray[np.int64], kind: str) -> Array:
    """(cases, classes) mean over images and views of a network's logits, logarithms of shares where one is right."""
    images = cases.of(chosen)
    found = [torch.zeros(0, cases.truth.shape[1])]
    for start in range(0, len(images), _ASKED):
        batch = torch.from_numpy(np.asarray(cases.images[images[start : start + _ASKED]], np.float32))
        batch = batch.squeeze(-1) if plan.planar else batch
        views = [network(batch.flip([2 + axis for axis in view])) for view in views_of(plan.changes.mirror_axes)]
        found.append(torch.stack([comparable(view, kind) for view in views]).mean(0))
    return pooled(torch.cat(found).numpy(), cases.owner[images], chosen)


def comparable(logits: Tensor, kind: str) -> Tensor:
    """Logits that may be averaged over networks: as they are for several labels, else with shares that add up to 1."""
    return logits if kind == "multilabel" else F.log_softmax(logits, 1)
