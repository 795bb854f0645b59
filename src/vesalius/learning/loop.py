"""The one training loop.

Reads top to bottom: draw a batch, change it, one step of AdamW on Dice plus cross-entropy under a cosine
schedule with warm-up, keep a moving average of the weights, look at the clock. Step n depends on the seed
and n alone, so an interrupted fit goes on as if it had not been interrupted, and a stored plan with the same
seed gives the same weights.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress
from vesalius.imaging.augmentation import AugmentationSettings, draw
from vesalius.learning.data import Patches

N = TypeVar("N", bound=nn.Module)
# One step of training by its number; returns the loss.
Lesson = Callable[[nn.Module, torch.optim.Optimizer, int], float]

_CHECKPOINT_SECONDS = 120.0
_SAY_SECONDS = 20.0
_CURVE_POINTS = 100
_GUARD_STEPS = 25  # the clock is looked at this often
_GUARD_SLACK = 0.03  # smaller deviations from the schedule are left alone


@dataclass(frozen=True)
class Schedule:
    """What the loop does.

    Args:
        steps: steps of the cosine.
        rate: largest learning rate.
        weight_decay: of AdamW.
        warm_up: share of the steps in which the rate rises.
        size: patch (i, j, k).
        spacing: mm.
        classes: of the network, background included; the class after them is ignored.
        bfloat16: autocast; weights and their changes stay float32.
        channels_last: memory format.
        device: "cpu" or "cuda".
        seed: of augmentation; batches have their own.
        augmentation: how patches are changed.
        turns: (step, steps) where the clock changed the number of steps; replayed when a plan is run again.
    """

    steps: int
    rate: float
    weight_decay: float
    warm_up: float
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    classes: int
    bfloat16: bool
    channels_last: bool
    device: str
    seed: int
    augmentation: AugmentationSettings
    turns: tuple[tuple[int, int], ...] = ()


@dataclass
class State:
    """How far the loop is: all that a checkpoint holds beside the weights."""

    step: int = 0
    steps: int = 0
    done: float = 0.0  # share of the schedule that has passed
    seconds: float = 0.0  # spent in the loop, interruptions not counted
    turns: list[tuple[int, int]] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)  # (step, mean loss since the last)


def segmentation_loss(logits: Tensor, label: Tensor, classes: int) -> Tensor:
    """Cross-entropy plus soft Dice (Milletari et al., V-Net, 3DV 2016), each class and sample alike.

    Args:
        logits: (n, classes, ...).
        label: (n, ...) int64; voxels of the value `classes` are left out of both terms.
        classes: background included.
    """
    kept = (label < classes).float()
    log_p = F.log_softmax(logits.float(), 1)
    target = F.one_hot(label.clamp_max(classes - 1), classes).movedim(-1, 1).float() * kept[:, None]
    cross = -(log_p * target).sum() / kept.sum().clamp_min(1.0)
    places = tuple(range(2, logits.ndim))
    p = log_p[:, 1:].exp() * kept[:, None]
    shared, total = (p * target[:, 1:]).sum(places), (p + target[:, 1:]).sum(places)
    return cross + 1.0 - ((2 * shared + 1.0) / (total + 1.0)).mean()


def rate_at(schedule: Schedule, done: float) -> float:
    """The learning rate when the share `done` of the schedule has passed: warm-up, then half a cosine."""
    rise = min(1.0, (done + 1e-3) / max(schedule.warm_up, 1e-3))
    return schedule.rate * rise * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))


def train(
    network: N,
    patches: Patches | None,
    schedule: Schedule,
    checkpoint: Path,
    progress: Progress,
    *,
    deadline: Callable[[], float] | None = None,
    resume: bool = False,
    saved: Callable[[], None] = lambda: None,
    lesson: Lesson | None = None,
) -> tuple[N, State]:
    """Train until the schedule is through.

    Args:
        network: fresh weights; trained in place.
        patches: where batches come from; None where a `lesson` draws its own.
        schedule: what to do.
        checkpoint: file that is written every two minutes and on interrupt.
        progress: told the loss and the time left.
        deadline: seconds left for this loop; where given, the schedule is stretched or shortened so that
            all of it fits. Left out, or with `schedule.turns`, the number of steps is as stored.
        resume: go on from `checkpoint` where it exists.
        saved: called whenever the checkpoint was written.
        lesson: another step than segmentation's; it depends on the seed and its number alone.

    Returns:
        The averaged network and how the training went.

    Raises:
        UsageError: the checkpoint belongs to another network.
        KeyboardInterrupt: after the checkpoint was written.
    """
    device = torch.device(schedule.device)
    network = network.to(device).train()
    if schedule.channels_last:
        five = any(p.ndim == 5 for p in network.parameters())
        formats: Any = torch.channels_last_3d if five else torch.channels_last
        network = network.to(memory_format=formats)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), schedule.rate, weight_decay=schedule.weight_decay)
    state = State(steps=schedule.steps)
    if resume and checkpoint.exists():
        state = load_checkpoint(checkpoint, network, average, optimiser)
        progress.say(f"Going on from step {state.step} of {state.steps}.")
    clock = _Clock(state, schedule, deadline, progress)
    lesson = lesson or _outlining(patches, schedule, device)
    recent: list[float] = []
    last = time.monotonic()

    def save() -> None:
        save_checkpoint(checkpoint, network, average, optimiser, state)
        saved()

    try:
        while state.step < state.steps:
            for group in optimiser.param_groups:
                group["lr"] = rate_at(schedule, state.done)
            loss = lesson(network, optimiser, state.step)
            follow(average, network, state.step, state.steps)
            recent.append(loss)
            state.done += (1.0 - state.done) / (state.steps - state.step)
            state.step += 1
            clock.look(recent)
            if time.monotonic() - last > _CHECKPOINT_SECONDS:
                save()
                last = time.monotonic()
    except KeyboardInterrupt:
        save()
        raise
    save()
    return average.eval(), state


def _outlining(patches: Patches | None, schedule: Schedule, device: torch.device) -> Lesson:
    """Segmentation's step."""
    if patches is None:
        raise ValueError("without a lesson of its own, training needs patches")
    source = patches

    def lesson(network: nn.Module, optimiser: torch.optim.Optimizer, number: int) -> float:
        image, label = changed_batch(source, schedule, number, device)
        return step(network, optimiser, image, label, schedule)

    return lesson


def changed_batch(patches: Patches, schedule: Schedule, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Batch `number`, augmented: image (n, channels, i, j, k) float32 and label (n, i, j, k) int64."""
    image, label = (torch.from_numpy(array).to(device) for array in patches.draw(number))
    own = torch.Generator().manual_seed((schedule.seed * 1_000_003 + number) % 2**63)
    drawn = draw(schedule.augmentation, len(image), schedule.size, schedule.spacing, own)
    ignored = schedule.classes + 1
    return drawn.apply(image, label, schedule.size, ignored)


def step(
    network: nn.Module, optimiser: torch.optim.Optimizer, image: Tensor, label: Tensor, schedule: Schedule
) -> float:
    """One step; returns the loss. Gradients longer than 1 are shortened."""
    if schedule.channels_last and image.shape[-1] > 1:
        image = image.contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast(schedule.device, torch.bfloat16) if schedule.bfloat16 else contextlib.nullcontext():
        logits = network(image)
    loss = segmentation_loss(logits, label, schedule.classes)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, number: int, steps: int) -> None:
    """Move the averaged weights towards the network's, over about the last fiftieth of the schedule."""
    reach = max(10.0, 0.02 * steps)
    weight = 1.0 - min(1.0 - 1.0 / reach, (number + 1) / (number + 10))
    ours: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(ours, [p.detach() for p in network.parameters()], weight)
    for own, other in zip(average.buffers(), network.buffers(), strict=True):
        own.copy_(other)


class _Clock:
    """Keeps the schedule inside its time, replays earlier turns, and tells how far it is."""

    def __init__(
        self, state: State, schedule: Schedule, deadline: Callable[[], float] | None, progress: Progress
    ) -> None:
        self.state, self.progress = state, progress
        self.replay = dict(schedule.turns)
        self.deadline = None if schedule.turns else deadline
        self.started, self.before = time.monotonic(), state.seconds
        self.first, self.said = state.step, time.monotonic()

    def look(self, recent: list[float]) -> None:
        """After each step."""
        state, now = self.state, time.monotonic()
        state.seconds = self.before + now - self.started
        if state.step in self.replay:
            self._turn(self.replay[state.step])
        elif self.deadline is not None and state.step % _GUARD_STEPS == 0 and state.step < state.steps:
            pace = (now - self.started) / (state.step - self.first)
            fitting = state.step + max(1, int(self.deadline() / pace))
            if abs(fitting - state.steps) > _GUARD_SLACK * (state.steps - state.step) + 2:
                self._turn(fitting)
        over = state.step >= state.steps
        if over or len(recent) >= max(1, state.steps // _CURVE_POINTS):
            state.curve.append((state.step, sum(recent) / len(recent)))
            recent.clear()
        if state.curve and (over or now - self.said > _SAY_SECONDS):
            pace = (now - self.started) / (state.step - self.first)
            mean, drawn = state.curve[-1][1], sparkline([loss for _, loss in state.curve])
            self.said = now
            left = pace * (state.steps - state.step) / 60
            self.progress.say(
                f"{drawn} loss {mean:.3f}, step {state.step} of {state.steps}, {pace:.2f} s a step, {left:.1f} min left"
            )

    def _turn(self, steps: int) -> None:
        self.state.steps = steps
        self.state.turns.append((self.state.step, steps))


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """A curve in one line of text: each character the mean of an equal share of the values."""
    parts = min(width, len(values))
    means = [
        sum(share) / len(share)
        for n in range(parts)
        if (share := values[n * len(values) // parts : (n + 1) * len(values) // parts])
    ]
    low, span = min(means), max(max(means) - min(means), 1e-9)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (mean - low) / span)] for mean in means)


def save_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, state: State
) -> None:
    """Weights, averaged weights and the optimiser's moments as safetensors; the state is its metadata."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in moments.items()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    save_file(tensors, beside, metadata={"state": json.dumps(vars(state))})
    beside.rename(path)


def load_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer | None = None
) -> State:
    """Put a checkpoint's weights into the networks and return its state.

    Raises:
        UsageError: it belongs to another network.
    """
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        network.load_state_dict(_below(tensors, "network."))
        average.load_state_dict(_below(tensors, "average."))
    except RuntimeError as error:
        raise UsageError("The checkpoint belongs to another network.", remedy="Fit again without --resume.") from error
    if optimiser is not None:
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimiser.").items():
            number, key = name.split(".", 1)
            moments.setdefault(int(number), {})[key] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
    state["turns"] = [(int(at), int(steps)) for at, steps in state["turns"]]
    state["curve"] = [(int(at), float(loss)) for at, loss in state["curve"]]
    return State(**state)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def seconds_per_step(
    network: nn.Module, patches: Patches, schedule: Schedule, steps: int, hopeless: float
) -> list[float]:
    """Seconds of each of a few steps on fresh weights, after one that does not count.

    Where that first one takes more than `hopeless` seconds, it is the only figure: threads that wait for
    each other on a busy machine can take a hundred times as long as one alone.
    """
    network = network.to(schedule.device).train()
    if schedule.channels_last and any(p.ndim == 5 for p in network.parameters()):
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), schedule.rate)
    spent: list[float] = []
    for number in range(1 + steps):
        began = time.perf_counter()
        image, label = changed_batch(patches, schedule, number, torch.device(schedule.device))
        step(network, optimiser, image, label, schedule)
        spent.append(time.perf_counter() - began)
        if spent[0] > hopeless:
            return spent
    return spent[1:]


def sizes_with_margin(size: Sequence[int], augmentation: AugmentationSettings) -> tuple[int, int, int]:
    """The patch to read so that moving it rarely shows repeated borders, (i, j, k)."""
    i, j, k = (n if n == 1 else n + 2 * math.ceil(0.5 * augmentation.shift + 0.05 * n) for n in size)
    return i, j, k
