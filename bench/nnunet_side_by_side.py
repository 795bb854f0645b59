"""Preparation and prediction side by side with nnU-Net v2: wall-clock seconds and peak memory of whole processes.

python bench/nnunet_side_by_side.py                                       # on virtual brains
python bench/nnunet_side_by_side.py --images DIR --labels DIR --unseen DIR --names 1=anterior,2=posterior

The peer gets an environment of its own below --work. Both programs see the same cores and the same files.
Memory is the largest resident size of any one process of a command, as the kernel counts it for wait4(2) and
as GNU time prints it. nnU-Net's weights come from two training steps: how long it predicts does not depend on
how good they are. Vesalius predicts with --model, or fits one for --minutes first, because its network's size
follows the budget.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PEER = ("torch==2.13.0", "nnunetv2==2.8.1")
DATASET = "Dataset001_Bench"

PREPARE = """
import sys
from vesalius.core.progress import Silent
from vesalius.learning import plan
from vesalius.learning.data import prepare_cases
from vesalius.learning.fingerprint import fingerprint, preparation_for
from vesalius.store.cohort import open_cohort
if __name__ == "__main__":
    study = open_cohort(sys.argv[1])
    cases = [case for case in study if case.label_image is not None]
    inputs = (cases[0].label_image.role,)
    found = fingerprint(study, cases, inputs)
    prepared, _ = prepare_cases(
        study, cases, preparation_for(found, inputs, plan.patch_limit(found, "cpu") * 200), Silent()
    )
    assert len(prepared) == len(cases)
"""

TWO_STEPS = """
import torch
from nnunetv2.run.run_training import get_trainer_from_args
if __name__ == "__main__":
    torch.set_num_threads(torch.get_num_threads())
    trainer = get_trainer_from_args("1", "3d_fullres", 0, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
    trainer.run_training()
"""


@dataclass(frozen=True)
class Cost:
    """Of one command: wall-clock seconds, and peak memory (MB) of its largest process."""

    seconds: float
    memory: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, max(self.memory, other.memory))


def cost(command: Sequence[str | Path], log: Path, **environment: str | Path) -> Cost:
    """Run a command to its end; its output goes to `log`."""
    settings = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    with log.open("w") as sink:
        started = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=sink, stderr=sink, env=settings)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command[0]} ended with {process.returncode}; see {log}")
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return Cost(seconds, usage.ru_maxrss / unit)


def grow(work: Path, count: int) -> tuple[Path, Path, Path]:
    """Virtual brains as NIfTI: folders of images and labels to learn from, and of unseen images."""
    from vesalius.formats.nifti import write_nifti
    from vesalius.virtual.anatomy import average_brain
    from vesalius.virtual.cohort import virtual_scan

    images, labels, unseen = work / "images", work / "labels", work / "unseen"
    for folder in (images, labels, unseen):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count + count // 4):
        scan = virtual_scan(average_brain(), 1, number)
        learned = number < count
        write_nifti((images if learned else unseen) / f"head_{number:03d}.nii.gz", scan.signal, scan.scanner.grid)
        if learned:
            write_nifti(labels / f"head_{number:03d}.nii.gz", scan.truth, scan.scanner.grid)
    return images, labels, unseen


def run_vesalius(
    work: Path, data: tuple[Path, Path, Path], names: str, model: Path | None, minutes: float
) -> dict[str, Cost]:
    """Costs of each part, with everything it makes below `work`."""
    images, labels, unseen = data
    command = Path(sys.executable).parent / "vesalius"
    study, key = work / "study", work / "key"
    script = work / "prepare.py"
    script.write_text(PREPARE)
    costs = {"door": cost([command, "ingest", images, "--into", study], work / "ingest.log", XDG_DATA_HOME=key)}
    costs["door"] += cost(
        [command, "label", study, "--masks", labels, "--names", names], work / "label.log", XDG_DATA_HOME=key
    )
    costs["prepare"] = cost([sys.executable, script, study], work / "prepare.log")
    if model is None:
        model = work / "model"
        fit = [command, "fit", study, "segmentation", "--minutes", str(minutes), "--to", model, "--no-rival"]
        cost(fit, work / "fit.log", XDG_DATA_HOME=key)
    costs["predict"] = cost([command, "predict", model, unseen, "--to", work / "out"], work / "predict.log")
    return costs


def peer_environment(folder: Path) -> Path:
    """The peer's `bin` folder; installed once."""
    binaries = folder / "bin"
    if not (binaries / "nnUNetv2_predict").exists():
        venv.create(folder, with_pip=True)
        for package in PEER:
            subprocess.run([binaries / "pip", "install", "--quiet", package], check=True)
    return binaries


def write_raw(work: Path, data: tuple[Path, Path, Path], names: str) -> dict[str, Path]:
    """The peer's raw layout, and the folders that its environment variables name."""
    images, labels, unseen = data
    places = {f"nnUNet_{part}": work / part for part in ("raw", "preprocessed", "results")}
    raw = places["nnUNet_raw"] / DATASET
    for folder in (raw / "imagesTr", raw / "labelsTr", work / "unseen"):
        folder.mkdir(parents=True)
    masks = sorted(labels.glob("*.nii.gz"))
    for mask in masks:
        shutil.copy(mask, raw / "labelsTr")
        shutil.copy(images / mask.name, raw / "imagesTr" / mask.name.replace(".nii.gz", "_0000.nii.gz"))
    for image in sorted(unseen.glob("*.nii.gz")):
        shutil.copy(image, work / "unseen" / image.name.replace(".nii.gz", "_0000.nii.gz"))
    values = {name: int(value) for value, name in (part.split("=") for part in names.split(","))}
    (raw / "dataset.json").write_text(
        json.dumps({
            "channel_names": {"0": "MRI"}, "labels": {"background": 0, **values},
            "numTraining": len(masks), "file_ending": ".nii.gz",
        })
    )  # fmt: skip
    return places


def run_nnunet(work: Path, data: tuple[Path, Path, Path], names: str, binaries: Path) -> dict[str, Cost]:
    """Costs of the same parts."""
    places = write_raw(work, data, names)
    prepare = [binaries / "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "3d_fullres", "-np", "2", "-npfp", "2"]
    costs = {"prepare": cost(prepare, work / "prepare.log", **places)}
    script = work / "two_steps.py"
    script.write_text(TWO_STEPS)
    cost([binaries / "python", script], work / "train.log", nnUNet_n_proc_DA="1", **places)
    predict = [
        binaries / "nnUNetv2_predict", "-i", work / "unseen", "-o", work / "out", "-d", "1", "-c", "3d_fullres",
        "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1",
    ]  # fmt: skip
    costs["predict"] = cost(predict, work / "predict.log", **places)
    return costs


def report(ours: dict[str, Cost], peer: dict[str, Cost]) -> None:
    """Print both, and ours as a share of the peer's."""
    print(f"{'':<10} {'Vesalius':>18} {'nnU-Net v2':>18} {'share of':>10} {'share of':>10}")
    print(f"{'part':<10} {'s':>9} {'MB':>8} {'s':>9} {'MB':>8} {'time':>10} {'memory':>10}")
    for part in ("prepare", "predict"):
        a, b = ours[part], peer[part]
        print(
            f"{part:<10} {a.seconds:>9.1f} {a.memory:>8.0f} {b.seconds:>9.1f} {b.memory:>8.0f} "
            f"{a.seconds / b.seconds:>10.2f} {a.memory / b.memory:>10.2f}"
        )
    door = ours["door"]
    print(
        f"Bringing the files in (ingest and label), which the peer has no counterpart of: {door.seconds:.1f} s, ",
        end="",
    )
    print(f"{door.memory:.0f} MB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=Path, help="NIfTI images to learn from; virtual brains if left out")
    options.add_argument("--labels", type=Path, help="their masks, called alike")
    options.add_argument("--unseen", type=Path, help="NIfTI images to predict")
    options.add_argument("--names", default="1=grey matter,2=white matter,3=CSF", help="what the masks' values mean")
    options.add_argument("--count", type=int, default=24, help="virtual brains to learn from")
    options.add_argument("--model", type=Path, help="Vesalius model to predict with")
    options.add_argument("--minutes", type=float, default=2.0, help="budget of fitting one where none is given")
    options.add_argument("--cores", type=int, default=2, help="cores that both programs may use")
    options.add_argument("--work", type=Path, default=Path("build/side_by_side"), help="folder for everything")
    chosen = options.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.cores])
    work = chosen.work.resolve()
    for part in ("data", "vesalius", "nnunet"):
        shutil.rmtree(work / part, ignore_errors=True)
        (work / part).mkdir(parents=True)
    given = (chosen.images, chosen.labels, chosen.unseen)
    data = grow(work / "data", chosen.count) if None in given else tuple(path.resolve() for path in given)
    binaries = peer_environment(work / "peer")
    ours = run_vesalius(work / "vesalius", data, chosen.names, chosen.model, chosen.minutes)
    report(ours, run_nnunet(work / "nnunet", data, chosen.names, binaries))


if __name__ == "__main__":
    main()
