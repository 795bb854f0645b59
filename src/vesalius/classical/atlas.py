"""Atlases: training patients' images with their outlines, and the common reference they are aligned to."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.classical.align import align
from vesalius.classical.frame import Float32, Frame, Volume, budget_spacing, transform
from vesalius.core.errors import StoreError, UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid

_THUMBNAIL = 20_000  # reference positions that similarity is judged on


@dataclass(frozen=True, eq=False)
class Atlas:
    """One training patient, packed: only those in use are unpacked.

    Args:
        pose: (d + 1, d + 1) from frame coordinates of the reference to those of the atlas.
        data: compressed image and label map around the outlines.
    """

    pose: FloatArray
    data: bytes

    @classmethod
    def pack(cls, volume: Volume, labels: Array, pose: FloatArray) -> Atlas:
        """Compress `volume` and its `labels` (i, j, k), both on one grid; intensities keep 11 bits."""
        kind = np.uint8 if labels.max(initial=0) < 256 and labels.min(initial=0) >= 0 else np.int32
        arrays = {
            "image": volume.array.astype(np.float16),
            "labels": labels.astype(kind),
            "affine": np.array(volume.grid.affine),
            "placed": np.array(volume.grid.placed),
        }
        return cls(pose, pack_arrays(arrays))

    def unpack(self) -> tuple[Volume, Array]:
        """The image and its label map."""
        arrays = unpack_arrays(self.data)
        i, j, k = arrays["labels"].shape
        grid = Grid((i, j, k), arrays["affine"], placed=bool(arrays["placed"]))
        return Volume(arrays["image"].astype(np.float32), grid), arrays["labels"]


def pack_arrays(arrays: Mapping[str, npt.ArrayLike]) -> bytes:
    """Arrays as compressed `.npz` bytes."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def unpack_arrays(data: bytes) -> dict[str, Array]:
    """What `pack_arrays` packed; nothing in it is executed.

    Raises:
        StoreError: the bytes are damaged.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise StoreError("The rival's arrays cannot be read.", remedy="Fit the rival again.") from error


@dataclass(frozen=True, eq=False)
class Reference:
    """The training image that every other image is aligned to, coarse, with what the atlases look like on it.

    Args:
        volume: its first channel.
        points: (n, d) frame coordinates around the outlines, on which similarity is judged.
        looks: (atlases, n) each atlas's intensities there, zero mean and unit length.
    """

    volume: Volume
    points: FloatArray
    looks: Float32

    def pose_of(self, volume: Volume, seed: int) -> FloatArray:
        """The map from the reference's frame coordinates to the volume's.

        Raises:
            UnusableInput: one is a plane image, the other a volume.
        """
        if volume.frame.dimension != self.volume.frame.dimension:
            raise UnusableInput("The rival was fitted on images with another number of dimensions.")
        return align(self.volume, guide(volume), seed)

    def ranking(self, volume: Volume, pose: FloatArray) -> npt.NDArray[np.intp]:
        """Atlases by falling correlation with an aligned volume."""
        look = looks_at(volume, self.points, pose)
        return np.argsort(-(self.looks @ look), kind="stable")


def guide(volume: Volume, channels: int | None = None) -> Volume:
    """The mean of the first `channels` channels (all if left out): what alignment goes by."""
    return Volume(volume.array[:channels].mean(axis=0, keepdims=True), volume.grid)


def looks_at(volume: Volume, points: FloatArray, pose: FloatArray) -> Float32:
    """Intensities at reference positions `points` (n, d), with zero mean and unit length."""
    values = guide(volume).sample(transform(pose, points))[0]
    values = values - values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), dtype=np.float32)


def common_reference(
    volumes: Sequence[Volume], boxes: Sequence[FloatArray], seed: int
) -> tuple[Reference, list[FloatArray]]:
    """Align training images to one of them, the one most like all others.

    Args:
        volumes: coarse training images.
        boxes: (2^d, d) corners of each one's outlines, in its own frame coordinates.
        seed: draws the voxels that alignment is judged on.

    Returns:
        The reference, and each image's pose: reference to image.
    """
    poses = [np.eye(volumes[0].frame.dimension + 1)]
    poses += [align(guide(volumes[0]), guide(volume), seed) for volume in volumes[1:]]
    points = _lattice(_around(boxes, poses))
    looks = [looks_at(volume, points, pose) for volume, pose in zip(volumes, poses, strict=True)]
    likeness = np.stack(looks) @ np.stack(looks).T
    middle = int(np.argmax(likeness.sum(axis=1)))
    back = np.linalg.inv(poses[middle])
    poses = [pose @ back for pose in poses]
    points = _lattice(_around(boxes, poses))
    looks = [looks_at(volume, points, pose) for volume, pose in zip(volumes, poses, strict=True)]
    return Reference(guide(volumes[middle]), points, np.stack(looks)), poses


def _around(boxes: Sequence[FloatArray], poses: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest reference coordinates of all outlines."""
    back = [transform(np.linalg.inv(pose), box) for box, pose in zip(boxes, poses, strict=True)]
    everything = np.concatenate(back)
    return everything.min(axis=0), everything.max(axis=0)


def _lattice(bounds: tuple[FloatArray, FloatArray]) -> FloatArray:
    """(n, d) evenly spaced positions in a box, a little wider than it."""
    low, high = bounds
    margin = 0.1 * (high - low)
    low, high = low - margin, high + margin
    step = max(float(np.prod(high - low)) / _THUMBNAIL, 1e-9) ** (1 / len(low))
    axes = [np.linspace(a, b, max(2, int((b - a) / step))) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(low))


def box_corners(labels: Array, frame: Frame, values: Sequence[int]) -> FloatArray | None:
    """(2^d, d) frame coordinates of the corners around all `values`; None where there are none."""
    inside = np.argwhere(np.isin(labels, list(values)).reshape(frame.shape))
    if not len(inside):
        return None
    ends = np.stack([inside.min(axis=0), inside.max(axis=0)])
    pick = np.stack(np.meshgrid(*([0, 1],) * frame.dimension, indexing="ij"), axis=-1)
    index = ends[pick.reshape(-1, frame.dimension), np.arange(frame.dimension)]
    return transform(frame.affine, index)


def region(grid: Grid, corners: FloatArray, margin: Sequence[float]) -> Grid:
    """The part of a canonical grid around frame coordinates `corners`, widened by `margin` voxels per axis.

    The whole grid where the corners lie outside it.
    """
    frame = Frame.of(grid)
    index = transform(np.linalg.inv(frame.affine), corners)
    start, stop = [0, 0, 0], list(grid.shape)
    for axis, low, high, extra in zip(frame.axes, index.min(axis=0), index.max(axis=0), margin, strict=True):
        first = int(np.clip(np.floor(low - extra), 0, grid.shape[axis]))
        last = int(np.clip(np.ceil(high + extra) + 1, 0, grid.shape[axis]))
        if last - first < 4:
            return grid
        start[axis], stop[axis] = first, last
    return grid.cropped(start, stop)


def coarse(volume: Volume, voxels: int) -> Volume:
    """The volume with at most about this many voxels."""
    return volume.at(budget_spacing(volume.grid, voxels))
