import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from learning_cohort import Held
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Split
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.finding import Finding
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.core.protocols import Prediction
from vesalius.core.report import Report
from vesalius.measures.summary import find_metric
from vesalius.measures.target import Target
from vesalius.reporting.html import report_page
from vesalius.reporting.write import cases_csv
from vesalius.tasks import task_named
from vesalius.tasks.arms import Measured
from vesalius.tasks.classification import Classification
from vesalius.tasks.classification_data import positive_class
from vesalius.tasks.site import Site

ARMS = {"model": "the network", "rival": "the hand-measured model"}
GRID = Grid.from_parts((24, 20, 1), placed=False, unit="pixel")
THREE = Target("kind", "multiclass", ("benign", "malignant", "normal"))
TWO = Target("sick", "binary", ("0", "1"))


def make_case(number, **covariates):
    pixels = np.random.default_rng(number).normal(100, 10, (1, *GRID.shape)).astype(np.float32)
    image = Image(f"i{number}", GRID, "image", Kind.INTENSITY, "US", 1, Held(pixels))
    return Case(f"case{number:03d}", f"p{number:03d}", (image,), covariates=covariates)


def make_cohort(values, name="kind", test=0, folder=Path("nowhere")):
    cases = tuple(make_case(n, **{name: value}) for n, value in enumerate(values))
    parts = {case.patient: "test" if n >= len(cases) - test else "train" for n, case in enumerate(cases)}
    return Cohort("study", folder, cases, Split(parts, {}, False, "Drawn.") if test else None)


def answer(classes, probabilities, **details):
    found = tuple(Finding(name, float(p)) for name, p in zip(classes, probabilities, strict=True))
    return Prediction(found, details=details)


def scored(task, cases, arms, seed=0, fails=()):
    """Scores of arms that know the truth as well as their number says."""
    scores = []
    for order, (arm, skill) in enumerate(arms.items()):
        random = np.random.default_rng(seed + order)
        for case in cases:
            logits = random.normal(np.array(task.target.value(case)) * skill, 1.0)
            said = np.exp(logits) / np.exp(logits).sum()
            if task.target.kind == "multilabel":
                said = 1 / (1 + np.exp(-logits))
            given = Prediction(status="no") if case.id in fails else answer(task.target.classes, said)
            scores += task.score(arm, case, given)
    return scores


def arrays(scores, arm, name, class_name):
    return np.array([s.value for s in scores if (s.arm, s.name, s.class_name) == (arm, name, class_name)])


def test_figures_agree_with_scikit_learn():
    cohort = make_cohort(["normal", "benign", "malignant"] * 20)
    task = Classification(THREE)
    scores = scored(task, cohort.cases, {"model": 2.0, "rival": 0.5})
    metrics = task.metrics(scores, seed=0)
    areas = []
    for name in THREE.classes:
        truth, said = (arrays(scores, "model", one, name) for one in ("truth", "probability"))
        areas.append(roc_auc_score(truth, said))
        assert find_metric(metrics, "model", "auroc", name).value == pytest.approx(areas[-1])
    overall = find_metric(metrics, "model", "auroc")
    assert overall.value == pytest.approx(np.mean(areas)) and overall.n == 60
    truth, named = (
        np.argmax([arrays(scores, "model", one, name) for name in THREE.classes], axis=0)
        for one in ("truth", "predicted")
    )
    balanced = find_metric(metrics, "model", "balanced_accuracy")
    assert balanced.value == pytest.approx(balanced_accuracy_score(truth, named))
    difference = find_metric(metrics, "difference", "auroc")
    assert difference.value == pytest.approx(overall.value - find_metric(metrics, "rival", "auroc").value)
    assert difference.low > 0
    said = task.sentences(scores, metrics, ARMS)
    assert said[0].startswith("The network's AUROC is 0.") and "above the hand-measured model" in said[0]
    assert any("benign" in one and "each against the others" in one for one in said)
    assert any(one.startswith("Triage for malignant:") for one in said)  # the one class that is not a normal state


def test_two_classes_have_the_figures_of_the_one_to_be_found():
    cohort = make_cohort([0.0, 1.0] * 25, "sick")
    task = task_named("classification", cohort, {"target": "sick"})
    assert task.target.classes == ("0", "1") and task.problems(cohort) == []
    scores = scored(task, cohort.cases, {"model": 0.8, "rival": 1.0})
    metrics = task.metrics(scores, seed=0)
    assert {m.class_name for m in metrics if m.name == "auroc"} == {"1", "all"}
    assert find_metric(metrics, "model", "auroc", "1").value == find_metric(metrics, "model", "auroc").value
    said = " ".join(task.sentences(scores, metrics, ARMS))
    assert "DeLong's test of equal areas on the same cases: p" in said
    assert "The network is not shown to be better than the hand-designed rival, the hand-measured model." in said
    assert "mean probability of sick 1" in said


def test_the_rival_may_win():
    cohort = make_cohort([0.0, 1.0] * 40, "sick")
    task = Classification(TWO)
    scores = scored(task, cohort.cases, {"model": 0.1, "rival": 3.0})
    said = task.sentences(scores, task.metrics(scores, seed=0), ARMS)
    assert said[0].startswith("The hand-designed rival wins:")
    assert said[1] == "The network is not better than the hand-designed rival, the hand-measured model."


@pytest.mark.parametrize("target", [TWO, Target("a,b", "multilabel", ("a", "b"))])
def test_no_answer_never_gains(target):
    random = np.random.default_rng(0)
    cases = [make_case(n, sick=float(n % 2), a=float(n % 2), b=float(random.random() < 0.5)) for n in range(40)]
    task = Classification(target)
    whole = task.metrics(scored(task, cases, {"model": 2.0}), seed=0)
    silent = {case.id for case in cases[10:16]}
    fewer = task.metrics(scored(task, cases, {"model": 2.0}, fails=silent), seed=0)
    names = ("auroc", "auprc", "sensitivity", "specificity", "balanced_accuracy")
    for name in names:
        assert find_metric(fewer, "model", name).value < find_metric(whole, "model", name).value, name
    for name in ("brier", "ece"):
        assert find_metric(fewer, "model", name).value > find_metric(whole, "model", name).value, name


def test_order_counts_where_the_classes_are_grades():
    grades = make_cohort([float(n % 4) for n in range(40)], "grade")
    task = task_named("classification", grades, {"target": "grade", "ordinal": True})
    assert task.target.kind == "ordinal" and task.card(grades)["kind"] == "ordinal"

    def kappa(shift):
        scores = []
        for n, case in enumerate(grades.cases):
            named = min(n % 4 + (shift if n % 3 == 0 else 0), 3)
            scores += task.score("model", case, answer(task.target.classes, np.eye(4)[named], predicted=str(named)))
        return find_metric(task.metrics(scores, seed=0), "model", "kappa_quadratic").value

    assert kappa(0) == pytest.approx(1.0) and kappa(1) > kappa(2)


def test_a_perfect_figure_keeps_a_doubt():
    cohort = make_cohort([0.0, 1.0] * 10, "sick")
    task = Classification(TWO)
    scores = [s for c in cohort for s in task.score("model", c, answer(TWO.classes, task.target.value(c)))]
    metrics = task.metrics(scores, seed=0)
    for name in ("auroc", "accuracy", "sensitivity"):
        found = find_metric(metrics, "model", name)
        assert found.value == found.high == 1.0 and 0.5 < found.low < 0.9


def test_the_models_own_choice_and_order_hold():
    case = make_case(0, sick=1.0)
    rows = Classification(TWO).score("model", case, answer(("1", "0"), (0.4, 0.6), predicted="1"))
    found = {(s.class_name, s.name): s.value for s in rows}
    assert found["1", "probability"] == 0.4 and found["1", "predicted"] == 1.0 and found["0", "predicted"] == 0.0
    assert found["1", "agreement"] == pytest.approx(0.4)
    task = Classification(TWO)
    assert task.rank(rows) == {case.id: pytest.approx(0.4)}


def test_answers_that_are_none_are_refused():
    task, case = Classification(TWO), make_case(0, sick=1.0)
    with pytest.raises(UnusableInput, match="none of the classes"):
        task.score("model", case, answer(("yes", "no"), (0.5, 0.5)))
    with pytest.raises(UnusableInput, match="between 0 and 1"):
        task.score("model", case, answer(("0", "1"), (0.5, np.nan)))
    with pytest.raises(UnusableInput, match="not known"):
        task.score("model", make_case(1), answer(("0", "1"), (0.5, 0.5)))
    assert not task.usable(make_case(1)) and task.usable(case)


def test_a_model_meets_another_cohort():
    cohort = make_cohort(["benign", "malignant", "odd"] * 3)
    card = {"target": "kind", "kind": "binary", "classes": [{"name": "malignant"}, {"name": "benign"}]}
    task = task_named("classification", cohort, card)
    assert task.target.classes == ("malignant", "benign") and task.unjudged == ("odd",)
    assert [task.usable(case) for case in cohort.cases[:3]] == [True, True, False]
    assert positive_class(task.target.classes) == 0
    with pytest.raises(UsageError, match=r"benign, malignant, odd"):
        task_named("classification", cohort, card | {"classes": [{"name": "cat"}, {"name": "dog"}]})
    with pytest.raises(UsageError, match="mean kind"):
        task_named("classification", cohort, {"target": "kinds"})


def test_problems_are_told_all_at_once(tmp_path):
    def found(values, test=0):
        cohort = make_cohort(values, test=test, folder=tmp_path)
        return " ".join(task_named("classification", cohort, {"target": "kind"}).problems(cohort))

    assert found(["a", "b"] * 4, 4) == ""
    assert "nothing to tell apart" in found(["a"] * 5)
    assert "one patient with class b; 2 are the least" in found(["a", "a", "b"])
    assert "training part has no patient with class b" in found(["a", "a", "a", "b"], 1)
    assert "nothing can be measured" in found(["a", "b", "a", "b", "a", "a"], 2)
    cohort = make_cohort(["a", "b"] * 4)
    deep = Grid.from_parts((24, 20, 8))
    image = replace(cohort.cases[0].images[0], grid=deep)
    mixed = replace(cohort, cases=(replace(cohort.cases[0], images=(image,)), *cohort.cases[1:]))
    assert "planes and volumes" in Classification(Target("kind", "binary", ("a", "b"))).problems(mixed)[0]
    nobody = Classification(Target("other", "binary", ("a", "b"))).problems(cohort)
    assert len(nobody) == 1 and "vesalius label" in nobody[0]


def test_the_page_holds_plots_tables_and_maps():
    cohort = make_cohort([0.0, 1.0] * 20, "sick")
    task = Classification(TWO, site=Site(0.01, 30.0), thresholds={"sensitivity_99": 0.2})
    scores = scored(task, cohort.cases, {"model": 2.0, "rival": 1.0}, fails={"case003"})
    plots = task.plots(cohort.cases, scores)
    assert [p.title for p in plots] == ["ROC: sick 1", "Precision and recall: sick 1", "Calibration: sick 1"]
    assert all(p.limits == (0.0, 1.0, 0.0, 1.0) for p in plots)
    assert all([s.name for s in p.series] == ["model", "rival", ""] for p in plots)
    tables = {table.title: table for table in task.tables(scores)}
    assert all(len(row) == len(table.columns) for table in tables.values() for row in table.rows)
    confusion = tables["Confusion of the model: cases"]
    assert sum(sum(row[1:-1]) for row in confusion.rows) == 40 and "no answer" in confusion.columns
    assert "Triage at 99 % sensitivity, at the site's prevalence (1 %)" in tables
    said = task.sentences(scores, task.metrics(scores, seed=0), ARMS)
    assert any("chosen before" in one for one in said) and any("At a prevalence of 1 %" in one for one in said)
    map_ = np.random.default_rng(0).random((2, 3, 3, 1))
    case = cohort.cases[3]
    predictions = {"model": answer(TWO.classes, (0.3, 0.7), map_0=map_), "rival": Prediction(status="no")}
    (picture,) = task.pictures(case, predictions, scores)
    bare = task.pictures(case, {"model": answer(TWO.classes, (0.3, 0.7)), "rival": Prediction(status="no")}, scores)[0]
    assert picture.pixels.dtype == np.uint8 and picture.pixels.ndim == 3
    assert not np.array_equal(picture.pixels.shape, bare.pixels.shape) or picture.pixels.std() != bare.pixels.std()
    assert "Truth: 1." in picture.caption and "Rival: no answer." in picture.caption
    metrics = task.metrics(scores, seed=0)
    report = Report("t", "classification", tuple(said), metrics, tuple(scores), tuple(tables.values()), tuple(plots),
                    (picture,))  # fmt: skip
    text = report_page(report)
    assert "polyline" in text and "Sensitivity at 90 % specificity" in text and 'class="guide"' in text
    rows = list(csv.DictReader(io.StringIO(cases_csv(scores))))
    assert list(rows[0])[:7] == ["case", "patient", "class", "agreement", "probability", "predicted", "truth"]
    assert len(rows) == 80 and "rival_probability" in rows[0]


def test_maps_wait_on_the_disk(tmp_path):
    case, measured = make_case(0, sick=1.0), Measured(tmp_path)
    map_ = np.random.default_rng(0).random((2, 3, 3, 1))
    measured.keep(case, {"model": answer(TWO.classes, (0.3, 0.7), map_0=map_, predicted="1")})
    assert "map_0" not in measured._answers[case.id]["model"][0].details
    back = measured.answers(case)["model"]
    assert back.label_map is None and back.details["predicted"] == "1"
    assert back.details["map_0"] == pytest.approx(map_, abs=1e-3)


def test_a_site_is_checked():
    with pytest.raises(UsageError, match="prevalence"):
        Site(1.5)
    with pytest.raises(UsageError, match="reading time"):
        Site(0.1, 0.0)
    assert Site.of({"site": {"prevalence": None, "seconds": None}}) == Site()


def test_nothing_measured_says_nothing():
    task = Classification(TWO)
    assert task.metrics([], seed=0) == () and task.tables([]) == [] and task.plots([], []) == []
    assert task.sentences([], (), ARMS)[0] == "Nothing could be measured of the network."
