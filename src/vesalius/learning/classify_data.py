"""Whole images for classification: what they look like, prepared once, held in memory or mapped from disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.grid import Array
from vesalius.core.image import Image, Kind
from vesalius.core.progress import Progress
from vesalius.imaging.duplicates import near_duplicates, perceptual_hash
from vesalius.imaging.prepare import Normalisation
from vesalius.imaging.whole import Triple, WholePreparation, prepare_whole
from vesalius.store.private import private_folder
from vesalius.store.sealed import Seal, seal_in, sealed_path

HELD_BYTES = 2 << 30  # prepared images that take less than this (float16) are held in memory, else mapped
_FORMAT = 1
_TASTED, _TINTED = 8, 0.05  # images whose colours are looked at, and share of pixels in colour that counts
_FEW_ALIKE, _MOST_ALIKE = 8, 0.1  # look-alikes in a group, or share of the cases, above which all look alike


@dataclass(frozen=True)
class Look:
    """A cohort's images in numbers; sizes in canonical axis order.

    Args:
        images: their number.
        extent: median extent along each axis, mm, or voxels where no spacing is stated.
        shape: median size, voxels.
        channels: 3 where most images are in colour, else 1; grey ones stored as colours are grey.
        modality: the most common one, "" where unknown.
        placed: whether every image knows its place in the patient.
    """

    images: int
    extent: tuple[float, float, float]
    shape: Triple
    channels: int
    modality: str
    placed: bool

    @property
    def planar(self) -> bool:
        """Whether the images have one slice."""
        return self.shape[2] == 1

    def as_json(self) -> dict[str, Any]:
        """Plain values for the card."""
        return asdict(self)

    def sentence(self) -> str:
        """The look in plain words."""
        size = " × ".join(str(n) for n in (self.shape[:2] if self.planar else self.shape))
        kind = "colour" if self.channels == 3 else "grey"
        return f"{self.images} {kind} images of about {size} voxels."


def images_of(case: Case, inputs: Sequence[str]) -> tuple[Image, ...]:
    """The images of a case that are pooled: those of the roles, or all where no role is named."""
    found = [image for image in case.images if image.kind is Kind.INTENSITY]
    return tuple(image for image in found if not inputs or image.role in inputs)


def look(cases: Sequence[Case], inputs: Sequence[str]) -> Look:
    """Look at every image's grid; pixels are read of a few images in colour only.

    Raises:
        UsageError: there is no image.
    """
    images = [image for case in cases for image in images_of(case, inputs)]
    if not images:
        raise UsageError("No case has the images that the model is to learn from.")
    grids = [image.grid.canonical()[0] for image in images]
    planar = sum(grid.shape[2] == 1 for grid in grids) * 2 >= len(grids)
    alike = [grid for grid in grids if (grid.shape[2] == 1) == planar]
    shapes = np.array([grid.shape for grid in alike], dtype=float)
    i, j, k = (int(np.ceil(n)) for n in np.median(shapes, 0))
    spacings = np.array([grid.spacing for grid in alike])
    a, b, c = (float(mm) for mm in np.median(shapes * spacings, 0))
    return Look(
        images=len(images), extent=(a, b, c), shape=(i, j, k),
        channels=3 if _colourful(images) else 1,
        modality=Counter(image.modality for image in images).most_common(1)[0][0],
        placed=all(grid.placed for grid in alike),
    )  # fmt: skip


def _colourful(images: Sequence[Image]) -> bool:
    """Whether most images have channels that differ; many grey images are stored as colours."""
    coloured = [image for image in images if image.channels >= 3]
    if 2 * len(coloured) <= len(images):
        return False
    for image in (coloured[n] for n in np.unique(np.linspace(0, len(coloured) - 1, _TASTED).astype(int))):
        with contextlib.suppress(UnusableInput):
            array = image.read()
            if (array[1:] != array[:1]).mean() > _TINTED:
                return True
    return False


def preparation_for(found: Look, inputs: Sequence[str], longest: int) -> WholePreparation:
    """A frame with the proportions of the median image, `longest` voxels along its longest axis.

    Each image is scaled by its own percentiles, so that brightness and contrast of the device do not count.
    Voxels are isotropic; those of volumes are not made finer than their own.
    """
    used = 2 if found.planar else 3
    extent = np.array(found.extent)
    finest = max(extent[:used]) / longest
    native = extent / np.array(found.shape)
    # Planes may be enlarged, for a network that knows larger pictures.
    voxel = np.full(3, finest) if found.planar else np.maximum(native, finest)
    size = np.maximum(np.rint(extent / voxel), 1).astype(int)
    size = np.where(size > 8, -(-size // 4) * 4, size)
    if found.planar:
        size[2], voxel[2] = 1, voxel[0]
    i, j, k = (int(n) for n in size)
    a, b, c = (float(mm) for mm in voxel / voxel.min())
    return WholePreparation(
        tuple(inputs), (i, j, k), (a, b, c), found.channels, Normalisation("unit", mean=0.5, std=0.25)
    )


@dataclass(frozen=True)
class WholeCases:
    """Prepared images, and whose they are.

    Args:
        images: (images, channels, i, j, k) float16, in memory or mapped from disk.
        owner: (images,) number of the case that each belongs to.
        truth: (cases, classes) 1 where the case has the class.
        names: pseudonyms of the cases.
        groups: (cases,) number of the group that must stay together: one patient and its look-alikes.
        left_out: a sentence for each case that cannot be used.
    """

    images: Array
    owner: npt.NDArray[np.int64]
    truth: npt.NDArray[np.float32]
    names: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    left_out: tuple[str, ...] = ()

    def of(self, cases: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Numbers of the images that belong to these cases."""
        return np.flatnonzero(np.isin(self.owner, cases))


def prepare_whole_cases(
    cohort: Cohort,
    cases: Sequence[Case],
    value: Callable[[Case], Sequence[float] | None],
    preparation: WholePreparation,
    progress: Progress,
) -> WholeCases:
    """Prepare the cases' images into the cohort's cache, or take them from it.

    Memory is one image beside the prepared ones, which are mapped from disk above `HELD_BYTES`.

    Args:
        cohort: for its folder and digest.
        cases: what may be learned from.
        value: the truth of a case, None where it is unknown.
        preparation: of each image.
        progress: told how far it is.
    """
    known = [case for case in cases if value(case) is not None]
    wanted = [(case, image) for case in known for image in images_of(case, preparation.inputs)]
    folder = cohort.folder / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    key = {
        "format": _FORMAT, "preparation": preparation.as_json(), "digest": cohort.digest,
        "images": [image.id for _, image in wanted],
    }  # fmt: skip
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path, note = folder / f"whole-{name}.npy", folder / f"whole-{name}.json"
    seal = seal_in(cohort.folder, cohort.meta)
    if seal is not None:
        data, images = _sealed(seal, path, note, wanted, preparation, progress)
    else:
        if not (cohort.digest and note.exists() and path.exists()):
            _write(path, note, wanted, preparation, progress)
        data = json.loads(note.read_text(encoding="utf-8"))
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    reasons, hashes = data["reasons"], [bytes.fromhex(text) for text in data["hashes"]]
    usable = [number for number, reason in enumerate(reasons) if reason is None]
    if images.nbytes <= HELD_BYTES:
        images = np.array(images[usable])
        rows = list(range(len(usable)))
    else:
        rows = usable
    return _gathered(wanted, known, value, images, rows, usable, reasons, hashes)


def _sealed(
    seal: Seal,
    path: Path,
    note: Path,
    wanted: Sequence[tuple[Case, Image]],
    preparation: WholePreparation,
    progress: Progress,
) -> tuple[dict[str, Any], Array]:
    """The cache of an encrypted cohort: written in a private folder and sealed, read into memory."""
    if not (sealed_path(note).exists() and sealed_path(path).exists()):
        room = 2 * len(wanted) * preparation.channels * math.prod(preparation.size)
        with private_folder(room) as private:
            _write(private / path.name, private / note.name, wanted, preparation, progress)
            seal.close_tree(private / path.name, path)
            seal.close_tree(private / note.name, note)
    with seal.opened(path) as plain:
        return json.loads(seal.read(note)), np.load(plain, allow_pickle=False)


def _gathered(
    wanted: Sequence[tuple[Case, Image]],
    known: Sequence[Case],
    value: Callable[[Case], Sequence[float] | None],
    images: Array,
    rows: Sequence[int],
    usable: Sequence[int],
    reasons: Sequence[str | None],
    hashes: Sequence[bytes],
) -> WholeCases:
    first_reason: dict[str, str] = {}
    for (case, _), reason in zip(wanted, reasons, strict=True):
        if reason is not None:
            first_reason.setdefault(case.id, reason)
    present = {wanted[number][0].id for number in usable}
    kept = [case for case in known if case.id in present]
    number_of = {case.id: number for number, case in enumerate(kept)}
    owner = np.full(len(images), -1, np.int64)
    owner[list(rows)] = [number_of[wanted[number][0].id] for number in usable]
    left_out = tuple(
        f"Case {case.id} is left out: {first_reason.get(case.id, 'it has no image.')}"
        for case in known
        if case.id not in present
    )
    look_alikes = {f"{number_of[wanted[n][0].id]}:{n}": hashes[n] for n in usable}
    truth = np.array([value(case) for case in kept], np.float32).reshape(len(kept), -1 if kept else 0)
    groups = grouped([case.patient for case in kept], look_alikes)
    return WholeCases(images, owner, truth, tuple(case.id for case in kept), groups, left_out)


def grouped(patients: Sequence[str], hashes: dict[str, bytes]) -> npt.NDArray[np.int64]:
    """A group number for each case: cases of one patient, and those whose images look alike, share one.

    Args:
        patients: of each case.
        hashes: perceptual hash by "<case number>:<anything>".
    """
    pairs = [(int(a.split(":")[0]), int(b.split(":")[0])) for a, b in near_duplicates(hashes)]
    first_of: dict[str, int] = {}
    alone = [(first_of.setdefault(patient, number), number) for number, patient in enumerate(patients)]
    by_patient, joined = _components(len(patients), alone), _components(len(patients), alone + pairs)
    if len(joined):
        most = max(_FEW_ALIKE, _MOST_ALIKE * len(patients), 2 * int(np.bincount(by_patient).max()))
        return joined if np.bincount(joined).max() <= most else by_patient
    return joined


def _components(n: int, pairs: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if n == 0:
        return np.zeros(0, np.int64)
    a, b = np.array(pairs).reshape(-1, 2).T
    _, labels = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(n, n)), directed=False)
    return np.asarray(labels, np.int64)


def _write(
    path: Path, note: Path, wanted: Sequence[tuple[Case, Image]], preparation: WholePreparation, progress: Progress
) -> None:
    """Prepare every image into one file; what cannot be used leaves zeros and its reason."""
    shape = (len(wanted), preparation.channels, *preparation.size)
    beside = path.with_name(path.name + ".part")
    array = np.lib.format.open_memmap(beside, mode="w+", dtype=np.float16, shape=shape)
    reasons: list[str | None] = []
    hashes: list[str] = []
    for number, (_, image) in enumerate(progress.track(wanted, "preparing images", total=len(wanted))):
        try:
            prepared = prepare_whole(image, preparation)
            array[number] = np.clip(prepared, -6e4, 6e4)
            reasons.append(None)
            hashes.append(perceptual_hash(prepared).hex())
        except UnusableInput as error:
            reasons.append(error.what)
            hashes.append("")
    array.flush()
    del array
    beside.rename(path)
    note_beside = note.with_name(note.name + ".part")
    note_beside.write_text(json.dumps({"reasons": reasons, "hashes": hashes}), encoding="utf-8")
    note_beside.rename(note)
