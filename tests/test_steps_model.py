"""fit, evaluate and predict: the chain on small volumes, and what it refuses."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

import vesalius as vs
from making import study, volume, write_nifti
from vesalius.core.errors import BundleError, PatientOverlap, UsageError
from vesalius.core.progress import Silent
from vesalius.core.protocols import RESEARCH_ONLY

NAMES = {1: "anterior", 2: "posterior"}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    before = os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = str(folder / "data")
    images, labels = study(folder / "in", cases=15)
    cohort = vs.ingest(images, into=folder / "study")
    cohort = vs.label(cohort, masks=labels, names=NAMES)
    progress = Silent()
    model = vs.fit(cohort, "segmentation", minutes=0.5, to=folder / "model", seed=1, progress=progress)
    yield folder, model, progress
    os.environ.pop("XDG_DATA_HOME") if before is None else os.environ.update(XDG_DATA_HOME=before)


@pytest.fixture(autouse=True)
def key_of_the_chain(fitted, own_key, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(fitted[0] / "data"))


def test_the_bundle_says_what_it_is_and_learned_something(fitted):
    folder, model, progress = fitted
    card = json.loads((folder / "model" / "card.json").read_text())
    assert card["research_only"] == RESEARCH_ONLY and card["task"] == "segmentation"
    assert card["cohort"]["digest"] == vs.open_cohort(folder / "study").digest
    assert len(card["patients_seen"]) == 12
    dice = next(m for m in card["metrics"] if m["name"] == "dice" and m["class"] == "all")
    assert dice["low"] <= dice["value"] <= dice["high"] and dice["n"] == 3
    assert dice["value"] > 0.5
    assert model.verify() < 1e-3
    assert (folder / "model.curve.png").read_bytes().startswith(b"\x89PNG")
    assert progress.figures["rival"] and progress.figures["rival_seconds"] > 0
    assert not (folder / ".model.fitting").exists()


def test_evaluate_scores_the_test_part_only_with_both_arms(fitted):
    folder, _, _ = fitted
    report = vs.evaluate(folder / "model", on=folder / "study", to=folder / "report")
    data = json.loads((folder / "report" / "report.json").read_text())
    assert {entry["arm"] for entry in data["metrics"]} == {"model", "rival", "difference"}
    assert {"dice", "iou", "hd95_mm", "nsd", "volume_error_ml"} <= {entry["name"] for entry in data["metrics"]}
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in data["metrics"])
    rows = list(csv.DictReader((folder / "report" / "cases.csv").open()))
    assert len({row["case"] for row in rows}) == 3
    page = (folder / "report" / "report.html").read_text()
    assert RESEARCH_ONLY in page and not re.search(
        r"""(?:src|href)\s*=\s*["']?\s*(?:https?:|//)|url\(["']?http""", page
    )
    assert report.sentences


def test_evaluate_refuses_patients_that_were_seen(fitted, tmp_path):
    folder, _, _ = fitted
    other = vs.ingest(folder / "in" / "images", into=tmp_path / "other")
    vs.label(other, masks=folder / "in" / "labels", names=NAMES)
    seen = vs.split(other, seed=99, redraw=True)
    with pytest.raises(PatientOverlap):
        vs.evaluate(folder / "model", on=seen.folder, to=tmp_path / "report")


def test_evaluate_on_another_cohort_scores_every_case(fitted, tmp_path):
    folder, _, _ = fitted
    for number in range(50, 53):
        image, label = volume(number)
        write_nifti(tmp_path / "in" / f"new_{number}.nii.gz", image)
        write_nifti(tmp_path / "masks" / f"new_{number}.nii.gz", label)
    other = vs.ingest(tmp_path / "in", into=tmp_path / "other")
    other = vs.label(other, masks=tmp_path / "masks", names=NAMES)
    vs.evaluate(folder / "model", on=other, to=tmp_path / "report")
    rows = list(csv.DictReader((tmp_path / "report" / "cases.csv").open()))
    assert len({row["case"] for row in rows}) == 3


def test_predict_answers_on_the_inputs_own_grid(fitted, tmp_path):
    _folder, model, _ = fitted
    image, label = volume(77)
    turned = np.array([[0, -1.0, 0, 30], [0, 0, 1.2, -7], [-1.0, 0, 0, 12], [0, 0, 0, 1]])
    write_nifti(tmp_path / "in" / "deep" / "a.nii.gz", image)
    write_nifti(tmp_path / "in" / "b.nii", np.ascontiguousarray(image.transpose(1, 2, 0)[:, ::-1]), turned)
    (tmp_path / "in" / "c.nii.gz").write_bytes(b"nothing")
    progress = Silent()
    rows = vs.predict(model, tmp_path / "in", to=tmp_path / "out", progress=progress)
    assert {row.input: row.status == "ok" for row in rows} == {
        "b.nii": True, "c.nii.gz": False, "deep/a.nii.gz": True,
    }  # fmt: skip
    assert [entry["input"] for entry in progress.aside] == ["c.nii.gz"]
    straight = nib.load(tmp_path / "out" / "deep__a.seg.nii.gz")
    assert straight.shape == image.shape and np.allclose(straight.affine, np.diag([1, 1, 1.2, 1]))
    found = np.asarray(straight.dataobj)
    dice = 2 * ((found == 1) & (label == 1)).sum() / ((found == 1).sum() + (label == 1).sum())
    assert dice > 0.5
    other = nib.load(tmp_path / "out" / "b.seg.nii.gz")
    assert other.shape == (24, 18, 20) and np.allclose(other.affine, turned)
    table = {row["input"]: row for row in csv.DictReader((tmp_path / "out" / "predictions.csv").open())}
    assert float(table["deep/a.nii.gz"]["anterior_ml"]) == pytest.approx((found == 1).sum() * 1.2e-3, abs=1e-4)
    assert table["c.nii.gz"]["anterior_ml"] == ""


def test_predict_does_not_overwrite_and_names_what_is_wrong(fitted, tmp_path):
    _folder, model, _ = fitted
    path = write_nifti(tmp_path / "a.nii.gz", volume(1)[0])
    vs.predict(model, path, to=tmp_path / "out")
    with pytest.raises(UsageError):
        vs.predict(model, path, to=tmp_path / "out")
    assert vs.predict(model, path, to=tmp_path / "out", force=True)[0].status == "ok"
    (tmp_path / "bad.nii").write_bytes(b"")
    with pytest.raises(UsageError):
        vs.predict(model, tmp_path / "bad.nii", to=tmp_path / "out2")
    with pytest.raises((UsageError, BundleError)):
        vs.predict("no-such-model", path, to=tmp_path / "out3")


def test_predict_needs_no_torch(fitted, tmp_path):
    folder, _, _ = fitted
    path = write_nifti(tmp_path / "a.nii.gz", volume(1)[0])
    script = (
        "import sys, vesalius as vs\n"
        f"vs.predict({str(folder / 'model')!r}, {str(path)!r}, to={str(tmp_path / 'out')!r})\n"
        "assert not {'torch', 'monai'} & set(sys.modules), 'torch was loaded'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_flipped_byte_in_the_bundle_is_refused(fitted, tmp_path):
    import shutil

    folder, _, _ = fitted
    shutil.copytree(folder / "model", tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        vs.open_bundle(tmp_path / "model")


def test_the_stored_plan_and_seed_give_the_same_model(fitted, tmp_path):
    folder, _, _ = fitted
    card = folder / "model" / "card.json"
    first, second = (
        vs.fit(folder / "study", minutes=5, to=tmp_path / name, seed=1, plan=card, rival=False).card["metrics"]
        for name in ("one", "two")
    )
    assert first == second
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_a_cohort_that_cannot_answer_says_everything_that_is_wrong(tmp_path):
    images, _ = study(tmp_path / "in", cases=3)
    cohort = vs.ingest(images, into=tmp_path / "study")
    with pytest.raises(UsageError, match="mask"):
        vs.fit(cohort, minutes=0.2)
    with pytest.raises(UsageError, match="poetry"):
        vs.fit(cohort, "poetry", minutes=0.2)


def test_a_killed_fit_goes_on_from_its_checkpoint(fitted, tmp_path):
    folder, _, _ = fitted
    words = ["fit", folder / "study", "--minutes", "0.6", "--to", tmp_path / "model", "--no-rival", "--seed", "2"]
    command = [sys.executable, "-m", "vesalius", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list((tmp_path / ".model.fitting").rglob("*.safetensors")):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model").exists()
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert vs.open_bundle(tmp_path / "model").card["seed"] == 2
