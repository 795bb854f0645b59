"""The ten actions of MIDI-B, and seconds per file, of the door and of other de-identifiers on the same plant.

python bench/privacy_peers.py --patients 12 --work /tmp/peers
python bench/privacy_peers.py --speed 300 --work /tmp/peers

Each peer is installed into one environment of its own below --work and runs with what its documentation says is
for such files: dicognito as it is; dicom-anonymizer with its standard profile; deid with its default recipe and
its replacement of identifiers. None of the three shifts dates by a keyed amount, cleans text, or reads pixels by
default; what they do not promise counts against them all the same, because the data are as identified for it.
Scores are by `vesalius.privacy.scoring`. Times are of whole processes, start included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import venv
import warnings
from collections.abc import Callable
from pathlib import Path

PEERS = ("dicognito==0.19.0", "dicom-anonymizer==2.1.0", "deid==0.4.13", "pylibjpeg", "pylibjpeg-openjpeg", "numpy")

DEID = """
import sys
from pathlib import Path
from deid.config import DeidRecipe
from deid.dicom import get_identifiers, replace_identifiers
files = [str(path) for path in sorted(Path(sys.argv[1]).rglob("*.dcm"))]
recipe = DeidRecipe()
for file in files:
    try:
        [done] = replace_identifiers([file], deid=recipe, save=False, remove_private=True, force=True,
                                     ids=get_identifiers([file], force=True))
        done.save_as(str(Path(sys.argv[2]) / Path(file).name))
    except Exception as error:
        print(type(error).__name__, file=sys.stderr)
"""
DOOR = """
import sys
from pathlib import Path
from pydicom import dcmread
from vesalius.privacy.headers import HeaderCleaner
from vesalius.formats.dicom_pixels import open_whole
from vesalius.privacy.objects import SeriesCleaner
from vesalius.privacy.profile import PixelMode, Profile
from vesalius.privacy.pseudonyms import Pseudonyms
key, profile, cleaners = Pseudonyms(b"bench" * 7), Profile(pixels=PixelMode(sys.argv[3])), {}
series = {}
for file in sorted(Path(sys.argv[1]).rglob("*.dcm")):
    uid = dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).get("SeriesInstanceUID")
    series.setdefault((file.parent.name, str(uid)), []).append(file)
for (patient, _), files in series.items():
    if patient not in cleaners:
        cleaners[patient] = HeaderCleaner(key, key.patient(patient), patient.rpartition("_")[2], profile)
    SeriesCleaner(cleaners[patient]).write(files, [Path(sys.argv[2]) / file.name for file in files])
"""


def environment(work: Path) -> Path:
    """The Python of the peers, made once."""
    folder = work / "environment"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)
    return python


def programs(python: Path) -> dict[str, Callable[[Path, Path], list[list[str]]]]:
    """Commands of each program from an input and an output folder."""
    tools = python.parent
    return {
        "door, headers only": lambda a, b: [[sys.executable, "-c", DOOR, str(a), str(b), "keep"]],
        "door, default": lambda a, b: [[sys.executable, "-c", DOOR, str(a), str(b), "clean"]],
        "dicognito": lambda a, b: [
            [str(python), "-m", "dicognito", "--output-directory", str(b), *map(str, sorted(a.rglob("*.dcm")))]
        ],
        "dicom-anonymizer": lambda a, b: [
            [str(tools / "dicom-anonymizer"), str(home), str(b)] for home in sorted(a.iterdir()) if home.is_dir()
        ],
        "deid": lambda a, b: [[str(python), "-c", DEID, str(a), str(b)]],
    }


def run(commands: list[list[str]]) -> float:
    """Wall-clock seconds of the commands one after the other."""
    start = time.monotonic()
    for command in commands:
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    return time.monotonic() - start


def many(folder: Path, count: int) -> None:
    """So many slices of pydicom's CT under one patient."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file
    from pydicom.uid import generate_uid

    home = folder / "Vandermolen_MRN7788123"
    home.mkdir(parents=True)
    ds = dcmread(get_testdata_file("CT_small.dcm"))
    ds.PatientName, ds.PatientID = "Vandermolen^Ann", "MRN7788123"
    for number in range(count):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.InstanceNumber = number
        ds.save_as(home / f"{number:05d}.dcm")


def main() -> None:
    from vesalius.privacy.planting import ACTIONS
    from vesalius.privacy.planting_files import plant
    from vesalius.privacy.scoring import score

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--speed", type=int, default=0, help="measure seconds per file on so many slices instead")
    parser.add_argument("--only", help="one program instead of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    tools = programs(environment(options.work))
    source = options.work / "in"
    shutil.rmtree(source, ignore_errors=True)
    warnings.simplefilter("ignore")
    key = None
    if options.speed:
        many(source, options.speed)
    else:
        key = plant(source, options.seed, options.patients)
    files = sum(1 for _ in source.rglob("*.dcm"))
    for name, commands in tools.items():
        if options.only not in (None, name):
            continue
        target = options.work / "out"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        seconds = run(commands(source, target))
        written = sum(1 for path in target.rglob("*") if path.is_file())
        print(f"{name:<20} {written} of {files} files, {1000 * seconds / files:.1f} ms a file")
        if key is None:
            continue
        scores = score(key, target)
        shares = (f"{action} {scores.right[action]}/{scores.total[action]}" for action in ACTIONS)
        print(f"  {100 * scores.share:.2f} % of {sum(scores.total.values())} checks: {', '.join(shares)}")


if __name__ == "__main__":
    main()
