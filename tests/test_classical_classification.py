"""The hand-designed rival of classification."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from vesalius.classical.classification import FeatureRival, classification_rival
from vesalius.classical.grading import fit_grader
from vesalius.classical.storage import load_rival, rival_folder, save_rival
from vesalius.classical.table import Scale
from vesalius.classical.trees import BoostSettings, Trees, boosted_classes, boosted_number
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Finding, Mask
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.measures.target import find_target

FEW = BoostSettings(trees=20)


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self) -> np.ndarray:
        return self.array


def case(number: int, grade: int, roles: tuple[str, ...] = ("image",)) -> Case:
    """A square whose brightness is the grade, in noise."""
    rng = np.random.default_rng(number)
    images = []
    for role in roles:
        array = rng.normal(0, 1, (1, 24, 20, 1)).astype(np.float32)
        array[:, 8:16, 6:14] += 2 * grade
        grid = Grid.from_parts(array.shape[1:])
        images.append(Image(f"i{number}-{role}", grid, role, Kind.INTENSITY, "", 1, Held(array)))
    known = {"grade": float(grade), "severe": "yes" if grade > 1 else "no", "odd": float(number % 2)}
    return Case(f"c{number:02d}", f"p{number // 2:02d}", tuple(images), covariates=known)


def cohort(folder: Path = Path("nowhere"), count: int = 24, roles: tuple[str, ...] = ("image",)) -> Cohort:
    return Cohort("made", folder, tuple(case(number, number % 3, roles) for number in range(count)))


@pytest.mark.parametrize(
    ("name", "ordinal", "classes"),
    [("severe", False, 2), ("grade", False, 3), ("grade", True, 3), ("severe,odd", False, 2)],
    ids=["binary", "multiclass", "ordinal", "multilabel"],
)
def test_every_kind_of_question_is_answered_and_kept(name: str, ordinal: bool, classes: int, tmp_path: Path) -> None:
    study = cohort(tmp_path)
    target = find_target(study, name, ordinal=ordinal)
    model = FeatureRival(target, settings=FEW).fit(study.cases[:18], study, ())
    answers = [model.predict(each.images) for each in study.cases[18:]]
    for answer in answers:
        assert [finding.name for finding in answer.findings] == list(target.classes)
        shares = [finding.score for finding in answer.findings]
        assert all(0 <= share <= 1 for share in shares)
        assert sum(shares) == pytest.approx(1) or target.kind == "multilabel"
    folder = rival_folder(study, f"classification-{name}")
    save_rival(model, folder)
    again = load_rival(folder)
    assert [again.predict(each.images) for each in study.cases[18:]] == answers
    assert len(again.card["classes"]) == classes
    assert len(again.card["patients_seen"]) == 9
    if target.kind != "multilabel":
        right = [target.classes[target.number(each)] for each in study.cases[18:]]
        assert np.mean([a.details["predicted"] == name for a, name in zip(answers, right, strict=True)]) > 0.8


def test_each_question_has_a_folder_of_its_own() -> None:
    study = cohort()
    folders = [
        rival_folder(study, question) for question in ("classification-a,b", "classification-a-b", "detection-a")
    ]
    assert len(set(folders)) == 3
    assert rival_folder(study) == study.folder / "models" / "rival-segmentation"
    assert all(folder.parent == study.folder / "models" for folder in (*folders, rival_folder(study, "../../x")))


def test_a_missing_view_is_no_obstacle() -> None:
    study = cohort(roles=("left", "right"))
    target = find_target(study, "severe")
    model = FeatureRival(target, settings=FEW).fit(study.cases, study, ("left", "right"))
    whole, half = study.cases[2], replace(study.cases[2], images=study.cases[2].images[:1])
    assert model.predict(whole.images).details["predicted"] == "yes"
    assert model.predict(half.images).findings[1].score == pytest.approx(
        model.predict(whole.images).findings[1].score, abs=0.4
    )
    with pytest.raises(UnusableInput):
        model.predict(())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_patients_give_no_certainty(count: int) -> None:
    study = cohort()
    model = FeatureRival(find_target(study, "severe"), settings=FEW).fit(study.cases[:count], study, ())
    for finding in model.predict(study.cases[5].images).findings:
        assert 0.05 < finding.score < 0.95


def test_blank_images_and_single_pixels_are_answered() -> None:
    study = cohort()
    model = FeatureRival(find_target(study, "grade"), settings=FEW).fit(study.cases, study, ())
    for shape in ((1, 24, 20, 1), (1, 1, 1, 1), (3, 5, 4, 1)):
        image = Image("x", Grid.from_parts(shape[1:]), "image", Kind.INTENSITY, "", shape[0], Held(np.zeros(shape)))
        assert sum(finding.score for finding in model.predict([image]).findings) == pytest.approx(1)


def test_outlines_count_only_where_every_training_case_has_one(tmp_path: Path) -> None:
    study = cohort(tmp_path)
    target = find_target(study, "severe")
    outlined = [replace(each, findings=(_outline(each),)) for each in study.cases]
    model = FeatureRival(target, settings=FEW).fit(outlined, study, ())
    assert model.outlined is not None
    assert any(name.startswith("shape_") for name in model.outlined.names)
    assert not any(name.startswith("shape_") for name in model.names)
    save_rival(model, rival_folder(study, "classification-severe"))
    again = load_rival(rival_folder(study, "classification-severe"))
    whole, inside = outlined[2].images, [*outlined[2].images, outlined[2].label_image]
    assert again.predict(inside) == model.predict(inside) != model.predict(whole)
    empty = replace(inside[1], pixels=Held(np.zeros((24, 20, 1), np.uint8)))
    assert model.predict([inside[0], empty]) == model.predict(whole)
    outlined[0] = replace(outlined[0], findings=(Finding("lesion", place=Mask(empty, 1)),))
    assert FeatureRival(target, settings=FEW).fit(outlined, study, ()).outlined is None


def _outline(each: Case) -> Finding:
    array = np.zeros((24, 20, 1), np.uint8)
    array[8:16, 6:14] = 1
    grid = each.images[0].grid
    return Finding("lesion", place=Mask(Image("l", grid, "label", Kind.LABEL, "", 1, Held(array)), 1))


def test_no_case_with_a_known_class_is_refused() -> None:
    study = cohort()
    target = find_target(study, "grade")
    unknown = [replace(each, covariates={}) for each in study.cases]
    with pytest.raises(UnusableInput):
        classification_rival(study, target).fit(unknown, study, ())


def test_trees_answer_as_scikit_learn_does() -> None:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (120, 5))
    labels = (features[:, 0] + rng.normal(0, 0.5, 120) > 0).astype(int) + (features[:, 1] > 1)
    options = {"max_features": "sqrt", "subsample": 0.7, "min_samples_leaf": 5, "learning_rate": 0.05}
    model = GradientBoostingClassifier(n_estimators=20, init="zero", random_state=3, **options).fit(features, labels)
    trees = boosted_classes(features, labels, FEW, 3)
    assert trees.scores(features) == pytest.approx(model.decision_function(features))
    again = Trees.from_arrays(trees.arrays())
    assert (again.scores(features) == trees.scores(features)).all()
    for name, value in (("left", 10**6), ("feature", -1), ("root", -2), ("depth", 1000)):
        with pytest.raises(ValueError, match="nowhere"):
            Trees.from_arrays({**trees.arrays(), name: np.full_like(trees.arrays()[name], value)})
    number, middle = boosted_number(features, features[:, 2] * 3, FEW, 3)
    other = GradientBoostingRegressor(n_estimators=20, init="zero", random_state=3, loss="huber", **options)
    other.fit(features, features[:, 2] * 3 - middle)
    assert number.scores(features)[:, 0] == pytest.approx(other.predict(features))


def test_the_judge_is_calibrated_and_not_fooled_by_noise() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 160)
    patients = [f"p{number // 2}" for number in range(160)]
    noise = rng.normal(0, 1, (160, 40))
    grader, judged = fit_grader(noise, labels, patients, 2, 0, FEW)
    assert judged.held_out is not None
    assert np.abs(grader.probabilities(rng.normal(0, 1, (50, 40)))[:, 1] - labels.mean()).mean() < 0.15
    assert min(judged.losses.values()) == pytest.approx(np.log(2), abs=0.08)


def test_the_scale_bears_outliers_and_gaps() -> None:
    values = np.array([[1.0, 5.0, np.nan], [2.0, 5.0, np.nan], [3.0, 5.0, np.nan], [1e12, 5.0, np.nan]])
    scaled = Scale.of(values).apply(values)
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() <= 4
    assert (scaled[:, 1:] == 0).all()
