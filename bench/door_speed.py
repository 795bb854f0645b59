"""Files per second through the door and through other de-identifiers, on one folder, one after the other.

python bench/door_speed.py --series 40 --slices 50 --work /tmp/speed
python bench/door_speed.py --from FOLDER --work /tmp/speed      # slices copied from the CT and MR files there

The door is the whole command, `vesalius ingest SOURCE --into COHORT --workers 2`, so it also finds series, checks
geometry, splits volumes and keeps the database; the peers (see `privacy_peers.py`) write files only. Reported are
files a second by the clock, CPU seconds of all processes, and the peak memory of the largest process. The machine
should do nothing else meanwhile; CPU time is there to tell when it did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from privacy_peers import environment, programs

PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


def carriers(source: Path | None) -> list[Any]:
    """Single-frame CT and MR slices with a place in the patient: pydicom's, or those of a folder."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    if source is None:
        names = ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm")
        return [dcmread(str(get_testdata_file(name, download=False))) for name in names]
    found = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        try:
            ds = dcmread(path)
        except Exception:  # damaged in whatever way: no carrier
            continue
        single = "PixelData" in ds and int(ds.get("NumberOfFrames") or 1) == 1 and "ImagePositionPatient" in ds
        if single and ds.get("Modality") in ("CT", "MR") and ds.file_meta.get("TransferSyntaxUID") in PLAIN:
            found.append(ds)
    return found


def slices(folder: Path, source: Path | None, series: int, count: int) -> None:
    """So many series of so many slices, of 13 patients, each series in a folder of its own."""
    from pydicom.uid import generate_uid

    files = carriers(source)
    for number in range(series):
        ds = files[number % len(files)]
        home = folder / f"patient{number % 13}" / f"series{number}"
        home.mkdir(parents=True)
        ds.PatientID, ds.PatientName = f"MRN77{number % 13:05d}", f"Vandermolen^Anna{number % 13}"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(ds, keyword, generate_uid(entropy_srcs=[str(number), keyword]))
        ds.ImageType, ds.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "AXIAL"], [1, 0, 0, 0, 1, 0]
        for k in range(count):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"{number} {k}"])
            ds.InstanceNumber, ds.ImagePositionPatient, ds.SliceLocation = k + 1, [-100, -100, 2.5 * k], 2.5 * k
            ds.ContentTime, ds.AcquisitionTime = f"{101500 + k % 40}", f"101500.{k:03d}"
            ds.save_as(home / f"{k:04d}.dcm")


def doors(workers: int) -> dict[str, Callable[[Path, Path], list[list[str]]]]:
    """The command, with headers only and in full."""

    def command(mode: str) -> Callable[[Path, Path], list[list[str]]]:
        start = [sys.executable, "-m", "vesalius", "ingest"]
        options = ["--pixels", mode, "--workers", str(workers), "--quiet"]
        return lambda a, b: [[*start, str(a), "--into", str(b / "cohort"), *options]]

    return {"door, headers only": command("keep"), "door, default": command("clean")}


def measured(commands: list[list[str]], home: Path) -> tuple[float, float, float]:
    """Seconds by the clock, CPU seconds, and the largest resident set (MB) of the commands."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(home)}
    wall, cpu, peak = time.monotonic(), 0.0, 0.0
    for command in commands:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, _, used = os.wait4(child.pid, 0)
        cpu += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss / 1024)
    return time.monotonic() - wall, cpu, peak


def peers(work: Path) -> Iterator[tuple[str, Callable[[Path, Path], list[list[str]]]]]:
    """The other programs, each on one flat folder: dicom-anonymizer does not go below it."""
    for name, commands in programs(environment(work)).items():
        if name.startswith("door"):
            continue
        if name == "dicom-anonymizer":
            tool = str(work / "environment" / "bin" / "dicom-anonymizer")
            yield name, lambda a, b: [[tool, str(a), str(b)]]  # noqa: B023 - one name only
        else:
            yield name, commands


def main() -> None:
    """Measure, print a table, and the ratio of the door to the fastest of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=40)
    parser.add_argument("--slices", type=int, default=50)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="measure the default mode, with pixels read, as well")
    parser.add_argument("--only", help="one program instead of all")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder, flat, out = (options.work / name for name in ("in", "flat", "out"))
    for path in (folder, flat):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    slices(folder, options.source, options.series, options.slices)
    files = sorted(folder.rglob("*.dcm"))
    for number, file in enumerate(files):
        os.link(file, flat / f"{number:05d}.dcm")
    runs = [(name, commands, folder) for name, commands in doors(options.workers).items()]
    runs += [(name, commands, flat) for name, commands in peers(options.work)]
    speed = {}
    for name, commands, source in runs:
        if options.only not in (None, name) or (name == "door, default" and not options.full):
            continue
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        wall, cpu, peak = measured(commands(source, out), options.work / "home")
        written = sum(1 for path in out.rglob("*.dcm"))
        speed[name] = written / wall
        print(
            f"{name:<20} {written:>6} of {len(files)} files {speed[name]:>8.1f} files/s "
            f"{1000 * cpu / max(written, 1):>7.2f} ms CPU a file {peak:>6.0f} MB"
        )
    others = [value for name, value in speed.items() if not name.startswith("door")]
    if others and "door, headers only" in speed:
        print(
            f"The door with headers only: {speed['door, headers only'] / max(others):.1f} x the fastest of the others."
        )


if __name__ == "__main__":
    main()
