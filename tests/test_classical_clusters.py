"""Groups without labels: found where they are, not found where there are none, and told in the report."""

import csv

import numpy as np
import pytest
from PIL import Image

import vesalius as vs
from vesalius.classical.clusters import structure
from vesalius.classical.clusters.associations import associations
from vesalius.classical.clusters.structure import find_structure
from vesalius.core.case import Case
from vesalius.core.errors import UsageError

PATIENTS = [f"p{n}" for n in range(60)]


@pytest.fixture(autouse=True)
def few_ways(monkeypatch):
    """Fewer ways of grouping, so that the tests take seconds."""
    monkeypatch.setattr(structure, "_MOST_GROUPS", 3)
    monkeypatch.setattr(structure, "_RESAMPLES", 4)


def cloud(seed, n=60):
    return np.random.default_rng(seed).normal(size=(n, 4)) * [2.0, 1.0, 1.0, 0.5]


def test_separate_heaps_are_found_and_named_by_size():
    heap = np.repeat([0, 1], [40, 20])
    points = 0.4 * cloud(1) + np.array([[0, 0, 0, 0], [4, 3, 0, 0]])[heap]
    found = find_structure(points, PATIENTS, seconds=1, seed=0)
    assert found.groups == 2 and found.probability <= 0.05 and found.chosen is not None
    assert np.array_equal(found.labels, heap)
    again = find_structure(points, PATIENTS, seconds=1, seed=0)
    assert np.array_equal(again.labels, found.labels) and again.tried == found.tried


def test_a_long_cloud_has_no_groups():
    found = find_structure(cloud(2), PATIENTS, seconds=1, seed=0)
    assert found.groups == 1 and found.chosen is None and found.probability > 0.05
    assert not found.labels.any()


@pytest.mark.parametrize("points", [np.zeros((60, 2)), cloud(3)[:8]])
def test_nothing_to_group_is_no_groups(points):
    found = find_structure(points, PATIENTS[: len(points)], seconds=1, seed=0)
    assert found.groups == 1 and found.tried == ()


def test_associations_find_what_goes_with_the_groups_and_count_every_question():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    cases = [
        Case(f"c{n}", f"p{n}", (), (), {"age": 50.0 + 15 * labels[n] + rng.normal(), "sex": "fm"[int(rng.integers(2))],
                                       "site": f"site {labels[n]}", "part": "train"})
        for n in range(60)
    ]  # fmt: skip
    tests = {test.covariate: test for test in associations(cases, labels)}
    assert set(tests) == {"age", "sex", "site"}
    assert tests["age"].adjusted < 0.001 and tests["site"].adjusted < 0.01 and tests["sex"].adjusted > 0.05
    assert all(test.probability <= test.adjusted <= 1 and 0 <= test.effect <= 1 for test in tests.values())
    assert tests["site"].effect == pytest.approx(1.0)


def textures(folder, count):
    """Planes of two kinds of ground, smooth and grainy; returns the table of patients."""
    folder.mkdir()
    rows = [("image", "patient", "kind")]
    for number in range(count):
        rng = np.random.default_rng(number)
        noise = rng.normal(size=(40, 40))
        if number % 2:
            noise = np.cumsum(np.cumsum(noise, 0), 1) / 40
        pixels = (128 + 40 * noise / noise.std()).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"plane_{number:02d}.png")
        rows.append((f"plane_{number:02d}", f"person {number}", ["grainy", "smooth"][number % 2]))
    with (folder.parent / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder.parent / "table.csv"


def test_the_chain_without_labels(tmp_path):
    table = textures(tmp_path / "in", 50)
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    vs.label(tmp_path / "study", table=table, patient="patient")
    model = vs.fit(tmp_path / "study", "clustering", minutes=0.2, to=tmp_path / "model")
    assert model.card["structure"]["groups"] > 1
    assert model.card["associations"][0]["covariate"] == "kind" and model.card["associations"][0]["adjusted"] < 0.01
    report = vs.evaluate(model, tmp_path / "study", tmp_path / "report")
    shares = [metric for metric in report.metrics if metric.name == "share_of_cases"]
    assert sum(metric.value for metric in shares) == pytest.approx(1.0)
    assert any("The groups of the training cases differ in kind" in sentence for sentence in report.sentences)
    assert (tmp_path / "report" / "report.html").exists() and report.pictures
    odd = np.zeros((40, 40), np.uint8)
    odd[10:30, 10:30] = 255
    (tmp_path / "new").mkdir()
    Image.fromarray(odd).save(tmp_path / "new" / "odd.png")
    for number in range(50):
        Image.open(tmp_path / "in" / f"plane_{number:02d}.png").save(tmp_path / "new" / f"usual_{number}.png")
    rows = {row.input: row.values for row in vs.predict(model, tmp_path / "new", to=tmp_path / "found")}
    assert rows["odd.png"]["anomaly"] == 1.0
    usual = np.array([rows[f"usual_{number}.png"]["anomaly"] for number in range(50)])
    assert 0.1 < np.median(usual) < 0.7 and (usual > 0.95).mean() < 0.2
    assert rows["usual_0.png"]["predicted"] in [entry["name"] for entry in model.card["classes"]]
    assert model.verify() < 1e-9


def test_too_few_patients_are_refused(tmp_path):
    textures(tmp_path / "in", 8)
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    with pytest.raises(UsageError, match="at least 20 patients"):
        vs.fit(tmp_path / "study", "clustering", minutes=0.2, to=tmp_path / "model")
