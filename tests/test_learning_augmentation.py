"""Augmentation: what is drawn is data, and image and label move together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vesalius.imaging.augmentation import Augmentation, AugmentationSettings, draw, identity

STRONG = AugmentationSettings(
    rotation=30, scaling=0.2, shift=3, elastic=1.5, mirror_axes=(0, 1), intensity=1, erase=0.5
)
SIZE = (12, 14, 10)
SPACING = (1.0, 1.0, 1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball(n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """An off-centre two-class ball whose intensity is ten times its class."""
    axes = torch.meshgrid(*(torch.arange(float(s)) for s in (20, 22, 18)), indexing="ij")
    distance = ((axes[0] - 8) ** 2 + (axes[1] - 12) ** 2 + (axes[2] - 8) ** 2).sqrt()
    label = (distance < 5).long() + (distance < 3).long()
    return (10.0 * label.float()).expand(n, 1, -1, -1, -1).clone(), label.expand(n, -1, -1, -1).clone()


def test_the_same_generator_draws_the_same_changes() -> None:
    a, b = (draw(STRONG, 3, SIZE, SPACING, generator(4)) for _ in range(2))
    image, label = ball(3)
    for one, two in zip(a.apply(image, label, SIZE, 3), b.apply(image, label, SIZE, 3), strict=True):
        assert torch.equal(one, two)
    other = draw(STRONG, 3, SIZE, SPACING, generator(5)).apply(image, label, SIZE, 3)
    assert not torch.equal(other[0], a.apply(image, label, SIZE, 3)[0])


def test_applying_twice_gives_the_same_and_leaves_the_input_alone() -> None:
    image, label = ball()
    before = image.clone()
    changes = draw(STRONG, 2, SIZE, SPACING, generator())
    assert torch.equal(changes.apply(image, label, SIZE, 3)[0], changes.apply(image, label, SIZE, 3)[0])
    assert torch.equal(image, before)


@pytest.mark.parametrize("seed", range(5))
def test_image_and_label_move_together(seed: int) -> None:
    image, label = ball()
    moved, classes = draw(STRONG, 2, (20, 22, 18), SPACING, generator(seed)).move(image, label, (20, 22, 18), 3)
    assert set(classes.unique().tolist()) <= {0, 1, 2}
    nearest = (moved[:, 0] / 10).round().long()
    inside = classes > 0
    assert (nearest[inside] == classes[inside]).float().mean() > 0.9
    assert (nearest == classes).float().mean() > 0.97


def test_the_ignored_class_moves_like_any_other() -> None:
    image, label = ball()
    label[label == 2] = 3
    classes = draw(STRONG, 2, SIZE, SPACING, generator(1)).move(image, label, SIZE, 4)[1]
    assert set(classes.unique().tolist()) <= {0, 1, 3} and (classes == 3).any()


def test_many_classes_take_the_nearest_and_agree_with_interpolation() -> None:
    image, label = ball()
    changes = draw(replace(STRONG, erase=0), 2, SIZE, SPACING, generator(2))
    few, many = changes.move(image, label, SIZE, 3)[1], changes.move(image, label, SIZE, 30)[1]
    assert (few == many).float().mean() > 0.95


def test_the_identity_cuts_the_centre() -> None:
    image, label = ball()
    moved, classes = identity(2).apply(image, label, (10, 12, 8), 3)
    torch.testing.assert_close(moved, image[:, :, 5:15, 5:17, 5:13], atol=1e-4, rtol=0)
    assert torch.equal(classes, label[:, 5:15, 5:17, 5:13])


def test_mirroring_alone_is_exact() -> None:
    still = identity(1)
    mirrored = replace(still, matrix=still.matrix * torch.tensor([-1.0, 1.0, 1.0]))
    image, label = ball(1)
    moved, classes = mirrored.apply(image, label, (20, 22, 18), 3)
    torch.testing.assert_close(moved, image.flip(2), atol=1e-4, rtol=0)
    assert torch.equal(classes, label.flip(1))


def test_planes_stay_in_their_plane() -> None:
    image, label = torch.randn(2, 3, 16, 16, 1), torch.ones(2, 16, 16, 1, dtype=torch.long)
    changes = draw(STRONG, 2, (12, 12, 1), SPACING, generator())
    assert torch.all(changes.matrix[:, 2, :2] == 0) and torch.all(changes.shift[:, 2] == 0)
    moved, classes = changes.apply(image, label, (12, 12, 1), 2)
    assert moved.shape == (2, 3, 12, 12, 1) and classes.shape == (2, 12, 12, 1)
    assert torch.isfinite(moved).all()


def test_what_is_erased_is_dark_and_not_labelled() -> None:
    image, label = ball(4)
    label[:] = 1
    changes: Augmentation = draw(AugmentationSettings(0, 0, 0, 0, intensity=0, erase=1), 4, SIZE, SPACING, generator())
    moved, classes = changes.apply(image + 1, label, SIZE, 2)
    assert (classes == 0).any() and (moved[:, 0][classes == 0] == 1).all()
