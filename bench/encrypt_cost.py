"""What `ingest --encrypt` costs: writing, reading and the cache, with and without, on synthetic volumes.

    python bench/encrypt_cost.py [--volumes 4] [--repeats 3] [--wall]

One process and one thread; processor time counts, so that other work on the machine does not, and the disk does not
either: `--wall` counts the clock instead. Volumes of 128 x 160 x 96 voxels, half of them as DICOM series and half as
NIfTI; the best of the repeats. Sizes are of the decoded arrays.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np

SHAPE = (128, 160, 96)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--volumes", type=int, default=4)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--wall", action="store_true")
    asked = arguments.parse_args()
    clock = time.perf_counter if asked.wall else time.process_time
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_DATA_HOME"] = f"{name}/key"
        folder = Path(name)
        make(folder / "scans", asked.volumes)
        rows = measure(folder, asked.repeats, clock)
    size = 2 * np.prod(SHAPE) * asked.volumes / 1e6  # as stored: 16 bits a voxel
    print(f"| {asked.volumes} volumes, {size:.0f} MB | plain | encrypted | ratio |\n|---|---|---|---|")
    for what, (plain, closed) in rows.items():
        print(f"| {what} | {size / plain:.0f} MB/s | {size / closed:.0f} MB/s | {closed / plain:.2f} |")


def make(folder: Path, volumes: int) -> None:
    """DICOM series and NIfTI files of noise on a smooth ground, one patient each."""
    from datetime import date

    from vesalius.core.grid import Grid
    from vesalius.formats.nifti import write_nifti
    from vesalius.virtual.dicom_mr import SeriesLabel, write_series
    from vesalius.virtual.patient import Patient

    grid = Grid.from_parts(SHAPE, spacing=(1.0, 1.0, 1.0), frame_of_reference=None)
    ground = np.add.outer(np.add.outer(*(np.linspace(0, 400, n) for n in SHAPE[:2])), np.linspace(0, 400, SHAPE[2]))
    for number in range(volumes):
        array = (ground + np.random.default_rng(number).normal(0, 20, SHAPE)).clip(0).astype(np.int16)
        if number % 2:
            folder.mkdir(parents=True, exist_ok=True)
            write_nifti(folder / f"volume_{number}.nii.gz", array, grid)
            continue
        patient = Patient(
            name=f"Example^{number}", number=f"EX{number}", sex="F", birth=date(1960, 1, 1), scanned=date(2024, 5, 1),
            address="1 Example Street", phone="555", physician="Doc^An",
        )  # fmt: skip
        write_series(folder / f"series_{number}", array.astype(np.float32), grid, patient, SeriesLabel(1, "T1"))


def measure(folder: Path, repeats: int, clock: Callable[[], float]) -> dict[str, tuple[float, float]]:
    """Seconds (plain, encrypted) of each step."""
    import vesalius
    from vesalius.learning import data
    from vesalius.learning.data import open_array, store_array
    from vesalius.store.sealed import Seal, seal_of

    def ingest(name: str, encrypt: bool) -> Callable[[int], object]:
        def run(turn: int) -> object:
            into = folder / f"{name}-{turn}"
            return vesalius.ingest(folder / "scans", into=into, encrypt=encrypt, pixels="keep", workers=1)

        return run

    def best(run: Callable[[int], object]) -> float:
        """The shortest time of a few runs, in seconds. What an earlier run left in memory is not used again."""
        taken = []
        for turn in range(repeats):
            data._frame.cache_clear()
            started = clock()
            run(turn)
            taken.append(clock() - started)
        return min(taken)

    blosc2.set_nthreads(1)
    rows: dict[str, tuple[float, float]] = {}
    rows["ingest --pixels keep"] = best(ingest("plain", False)), best(ingest("closed", True))
    cohorts = [vesalius.open_cohort(folder / f"{name}-0") for name in ("plain", "closed")]
    for kind, dicom in (("DICOM series", True), ("NIfTI volumes", False)):
        times = []
        for cohort in cohorts:
            images = [image for case in cohort for image in case.images if bool(image.modality) is dicom]
            times.append(best(lambda _, images=images: [image.read() for image in images]) * 2)  # of half the size
        rows[f"read {kind}"] = times[0], times[1]
    arrays = [image.read().astype(np.float16) for case in cohorts[0] for image in case.images]
    seals: list[Seal | None] = [seal_of(cohort.folder) for cohort in cohorts]
    written, opened = [], []
    for cohort, seal in zip(cohorts, seals, strict=True):
        paths = [cohort.folder / "cache" / f"{number}.b2nd" for number in range(len(arrays))]
        pairs = list(zip(paths, arrays, strict=True))
        written.append(best(lambda _, pairs=pairs, seal=seal: [store_array(p, a, seal) for p, a in pairs]))
        opened.append(best(lambda _, paths=paths, seal=seal: [open_array(p, seal)[:] for p in paths]))
    rows["write the cache"], rows["read the cache"] = (written[0], written[1]), (opened[0], opened[1])
    return rows


if __name__ == "__main__":
    main()
