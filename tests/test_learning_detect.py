from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vesalius.core.case import Case  # noqa: E402
from vesalius.core.cohort import Cohort  # noqa: E402
from vesalius.core.errors import BundleError, UsageError  # noqa: E402
from vesalius.core.finding import Box, Finding, Point  # noqa: E402
from vesalius.core.grid import Grid  # noqa: E402
from vesalius.core.identity import seen_hash  # noqa: E402
from vesalius.core.image import Image, Kind  # noqa: E402
from vesalius.core.progress import Silent  # noqa: E402
from vesalius.core.protocols import Fitted  # noqa: E402
from vesalius.imaging.contrast import View, ViewRecipe, view  # noqa: E402
from vesalius.inference.candidates import Candidates  # noqa: E402
from vesalius.inference.detector import Detector  # noqa: E402
from vesalius.inference.heat import HeatGeometry, heat_map  # noqa: E402
from vesalius.inference.other_views import OtherViews, tables_of  # noqa: E402
from vesalius.inference.second_look import FEATURES, SecondLook  # noqa: E402
from vesalius.learning.detect import fit_detection  # noqa: E402
from vesalius.learning.detect_data import LesionPatches, LookedOver, look_over, target_of  # noqa: E402
from vesalius.learning.detect_judge import (  # noqa: E402
    Judged,
    Scoring,
    Turn,
    _alarm_scores,
    _with_other_views,
    fit_scoring,
    with_trees,
)
from vesalius.learning.detect_lesson import detection_loss, runner  # noqa: E402
from vesalius.learning.detect_opinion import FilterStudy  # noqa: E402
from vesalius.learning.detect_plan import DetectPlan, first_plan, with_photographs  # noqa: E402
from vesalius.learning.study import FitSettings  # noqa: E402
from vesalius.measures.target import Target, find_target  # noqa: E402
from vesalius.networks.detector import detector  # noqa: E402
from vesalius.store.bundle import open_bundle, write_bundle  # noqa: E402
from vesalius.tasks.models import load_model  # noqa: E402

LESION = Target("lesion", "places", ("lesion",))


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self) -> np.ndarray:
        return self.array


def image_of(array: np.ndarray, name: str, spacing: tuple[float, float, float] | None = None) -> Image:
    affine = np.diag([*(spacing or (1.0, 1.0, 1.0)), 1.0])
    grid = Grid(array.shape[1:], affine, None, spacing is not None, "mm" if spacing else "pixel")
    return Image(name, grid, "image", Kind.INTENSITY, "", len(array), Held(array))


def lesion_case(number: int, shape: tuple[int, int, int], lesions: int, channels: int = 1) -> Case:
    """Noise with bright balls of radius 5."""
    rng = np.random.default_rng(number)
    array = rng.normal(100, 10, (channels, *shape)).astype(np.float32)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    name, findings = f"i{number}", []
    for _ in range(lesions):
        centre = np.array([rng.integers(8, n - 8) if n > 16 else 0 for n in shape])
        array[:, np.square(grid - centre.reshape(3, 1, 1, 1)).sum(0) <= 25] += 60
        place = Point(name, (float(centre[0]), float(centre[1]), float(centre[2])), 5.0)
        findings.append(Finding("lesion", place=place, attributes={"kind": "round"}))
    image = image_of(array, name, (1.0, 1.0, 1.0) if shape[2] > 1 else None)
    return Case(f"c{number}", f"p{number // 2}", (image,), tuple(findings), {}, frozenset([name]))


def cohort_of(tmp_path: Path, shape: tuple[int, int, int], count: int, channels: int = 1) -> Cohort:
    cases = tuple(lesion_case(n, shape, n % 3, channels) for n in range(count))
    return Cohort("balls", tmp_path / "cohort", cases, digest="d")


def fit(cohort: Cohort, tmp_path: Path, target: Target = LESION, **changes: object) -> Fitted:
    settings = FitSettings(**{"minutes": 0.1, "inputs": (), "device": "cpu", "threads": 1, **changes})  # type: ignore[arg-type]
    return fit_detection(cohort, cohort.cases, settings, tmp_path / "work", Silent(), target)


def loaded(fitted: Fitted, folder: Path, target: Target = LESION) -> Detector:
    classes = [{"value": n, "name": name, "code": None} for n, name in enumerate(target.classes, 1)]
    card = {
        "name": "m", "task": "detection", "research_only": "yes", "inputs": [], "classes": classes, **fitted.card,
    }  # fmt: skip
    return Detector(open_bundle(write_bundle(folder, fitted.files, card)), 1)


def test_planes_are_learned_and_found_at_the_bedside(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, (64, 72, 1), 12)
    plan = first_plan([(case, LESION.places(case)) for case in cohort.cases], 2, "cpu", 1)
    fitted = fit(cohort, tmp_path, plan=replace(plan, steps=45).as_json())
    model = loaded(fitted, tmp_path / "model")
    assert model.verify() < 1e-3
    hit = 0
    for number in (103, 104, 106, 107):
        case = lesion_case(number, (64, 72, 1), 1)
        answer = model.predict(case.images)
        scores = [finding.score for finding in answer.findings]
        assert scores == sorted(scores, reverse=True) and len(scores) <= 10
        best = answer.findings[0].place
        assert isinstance(best, Box) and best.image_id == case.images[0].id
        wanted = case.findings[0].place
        assert isinstance(wanted, Point)
        hit += bool(np.hypot(*np.subtract(best.centre, wanted.centre)[:2]) <= 5)
    assert hit >= 3
    assert any("Out of fold" in sentence for sentence in fitted.card["sentences"])
    points = fitted.card["threshold"]["false_positives_per_image"]["lesion"]
    assert list(points) == ["0.5", "1", "2", "4"]
    assert 1 > points["0.5"] >= points["1"] >= points["2"] >= points["4"] >= 0
    assert 0 <= fitted.card["threshold"]["sensitivity_99"] < 1


def test_filters_give_a_second_opinion_where_it_helps(tmp_path: Path) -> None:
    """A network of five steps knows nothing; the filters find balls."""
    cohort = cohort_of(tmp_path, (64, 72, 1), 24)
    plan = first_plan([(case, LESION.places(case)) for case in cohort.cases], 2, "cpu", 1)
    fitted = fit(cohort, tmp_path, plan=replace(plan, steps=5, filters=True).as_json())
    said = " ".join(fitted.card["sentences"])
    assert "hand-designed filters alone: sensitivity" in said and "both together: sensitivity" in said
    assert fitted.card["second_opinion"]["slope"] > 0 and "filters/grader.npz" in fitted.files
    with pytest.raises(BundleError, match="filters are missing"):
        loaded(fitted, tmp_path / "model")
    model = load_model(tmp_path / "model", 1)
    case = lesion_case(103, (64, 72, 1), 1)
    answer = model.predict(case.images)
    best, wanted = answer.findings[0].place, case.findings[0].place
    assert isinstance(best, Box) and isinstance(wanted, Point)
    assert np.hypot(*np.subtract(best.centre, wanted.centre)[:2]) <= 5
    scores = [finding.score for finding in answer.findings]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
    damaged = {**model.card, "second_opinion": {"slope": 1.0, "bias": 0.0}}
    with pytest.raises(BundleError, match="filters cannot be read"):
        load_model(write_bundle(tmp_path / "damaged", fitted.files, damaged), 1)
    opinion = model.card["second_opinion"]
    for change in ({"plan": {}}, {"plan": {"side": 1e9, "radii": [0.1], "dark": False}}, {"classes": [{}]}):
        values = opinion["filters"]["values"]
        entry = {**opinion["filters"], "values": {**values, "card": {**values["card"], **change}}}
        damaged = {**model.card, "second_opinion": {**opinion, "filters": entry}}
        with pytest.raises(BundleError, match="filters cannot be read"):
            load_model(write_bundle(tmp_path / "damaged", fitted.files, damaged), 1)
    (tmp_path / "model" / "filters" / "grader.npz").write_bytes(b"cut")
    with pytest.raises(BundleError):
        load_model(tmp_path / "model", 1)


def study_of(cohort: Cohort, budget: float = math.inf) -> FilterStudy | None:
    settings = FitSettings(minutes=1.0, inputs=())
    return FilterStudy.of(cohort, cohort.cases, LESION, settings, budget, Silent())


def test_filters_are_not_asked_where_they_take_too_long_or_see_too_few_lesions(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, (64, 72, 1), 14)
    assert study_of(cohort) is not None
    assert study_of(cohort, 1e-6) is None
    few = replace(cohort, cases=cohort.cases[:6])
    assert study_of(few) is None


def test_a_patient_is_never_asked_about_by_filters_that_know_it(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, (64, 72, 1), 24)
    study = study_of(cohort)
    assert study is not None
    groups = [{f"p{n}" for n in range(12) if n % 2 == side} for side in (0, 1)]
    filters = study.ask(cohort, (), groups)
    assert filters is not None and set(filters.marks) == {f"i{n}" for n in range(24)}
    without = study.rival.learned(study.examination, cohort, (), without=groups[0])
    assert set(without.card["patients_seen"]) == {seen_hash(patient) for patient in groups[1]}
    item = next(item for item in study.examination.images if item.patient == "p0")
    assert filters.marks[item.proposed.image] == without.marks(item.proposed)


def test_planes_start_from_photographs_where_there_is_time(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, (64, 72, 1), 8)
    plan = with_photographs(first_plan([(case, LESION.places(case)) for case in cohort.cases], 2, "cpu", 1))
    assert [n % m for n, m in zip(plan.patch, plan.multiple, strict=True)] == [0, 0, 0]
    fitted = fit(cohort, tmp_path, plan=replace(plan, steps=6).as_json())
    assert fitted.card["start"]["licence"] == "Apache-2.0"
    model = loaded(fitted, tmp_path / "model")
    assert model.verify() < 1e-3
    assert model.predict(lesion_case(103, (64, 72, 1), 1).images).details["images"]
    short = fit(cohort, tmp_path / "short", minutes=0.03)
    assert short.card["plan"]["pretrained"] is False and "start" not in short.card


def test_volumes_and_several_classes(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, (40, 36, 32), 6)
    cases = tuple(
        replace(case, findings=tuple(replace(f, name="b" if n % 2 else "a") for f in case.findings))
        for n, case in enumerate(cohort.cases)
    )
    cohort = replace(cohort, cases=cases)
    target = find_target(cohort, "a,b", places=True)
    model = loaded(fit(cohort, tmp_path, target), tmp_path / "model", target)
    answer = model.predict(cases[1].images)
    assert {finding.name for finding in answer.findings} <= {"a", "b"}
    flat = lesion_case(1, (64, 64, 1), 1)
    with pytest.raises(Exception, match="volumes"):
        model.predict(flat.images)


def test_without_a_lesion_nothing_can_be_learned(tmp_path: Path) -> None:
    cases = tuple(lesion_case(n, (40, 40, 1), 0) for n in range(4))
    with pytest.raises(UsageError, match="no lesion"):
        fit(Cohort("none", tmp_path, cases), tmp_path)


def test_one_patient_and_blank_images(tmp_path: Path) -> None:
    blank = image_of(np.zeros((1, 64, 64, 1), np.float32), "blank")
    cases = (lesion_case(1, (64, 64, 1), 1), Case("cb", "pb", (blank,), (), {}, frozenset(["blank"])))
    fitted = fit(Cohort("few", tmp_path, cases), tmp_path, minutes=0.05)
    assert any("left out" in sentence for sentence in fitted.card["sentences"])
    only = Case("cb", "pb", (blank,), (Finding("lesion", place=Point("blank", (30.0, 30.0, 0.0), 5.0)),), {},
                frozenset(["blank"]))  # fmt: skip
    with pytest.raises(UsageError, match="can be used"):
        fit(Cohort("blank", tmp_path, (only,)), tmp_path)


def test_a_stored_plan_gives_the_same_weights(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, (64, 64, 1), 6, channels=3)
    first = fit(cohort, tmp_path, minutes=0.02, folds=2)
    again = fit(cohort, tmp_path, minutes=0.01, plan=first.card["plan"])
    assert first.files["weights.safetensors"] == again.files["weights.safetensors"]
    assert DetectPlan.from_json(first.card["plan"]).folds == 2
    with pytest.raises(UsageError, match="plan"):
        fit(cohort, tmp_path, plan={"format": 1})


def test_resolution_follows_the_lesions() -> None:
    def plan(shape: tuple[int, int, int], width: float) -> DetectPlan:
        case = Case("c", "p", (image_of(np.zeros((1, *shape), np.uint8), "i"),), (), {}, frozenset("i"))
        return first_plan([(case, {"i": [(0, Box("i", (9.0, 9.0, 0.0), (width, width, 1.0)))]})], 1, "cpu", 1)

    assert plan((1024, 1024, 1), 84.0).view.spacing[0] == 4
    assert plan((1024, 1024, 1), 8.0).view.spacing[0] == 1
    assert plan((200, 200, 1), 150.0).view.spacing[0] == 1
    assert plan((8000, 6000, 1), 800.0).view.spacing[0] == 38


def test_heat_is_highest_where_the_lesion_is(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, (64, 64, 1), 3)
    images, _ = look_over(cohort, [(c, LESION.places(c)) for c in cohort.cases], ViewRecipe((1, 1, 1)), Silent())
    image = images[1]
    heat, sizes = target_of(image, (0, 0, 0), image.shape, 1)
    assert np.unravel_index(heat[0].argmax(), image.shape) == tuple(image.centres[0].astype(int))
    assert heat.max() == pytest.approx(1.0) and np.exp(sizes[0]).max() == pytest.approx(10.0)
    plan = first_plan([(c, LESION.places(c)) for c in cohort.cases], 1, "cpu", 1)
    patches = LesionPatches(images, (32, 32, 1), 4, 1, 0, plan.augmentation)
    seen, wanted, lengths, weight = patches.draw(7)
    again = patches.draw(7)
    assert all(torch.equal(a, b) for a, b in zip((seen, wanted, lengths, weight), again, strict=True))
    assert seen.shape == (4, 5, 32, 32, 1) and wanted.shape == (4, 1, 16, 16, 1) and wanted.min() >= 0
    perfect = torch.where(wanted > 0.5, 8.0, -8.0)
    none = torch.full_like(wanted, -8.0)
    assert detection_loss(perfect, lengths, wanted, lengths, weight) < detection_loss(
        none, lengths, wanted, lengths, weight
    )


def test_tiles_answer_as_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = detector(4, 1, 2, (4, 4, 4)).eval()
    geometry = HeatGeometry((2, 2, 1), (8, 8, 1), (0,))
    array = np.random.default_rng(0).normal(size=(4, 150, 90, 1)).astype(np.float32)
    whole, sizes = heat_map(array, runner(network, "cpu"), geometry)
    monkeypatch.setattr("vesalius.inference.heat._TILE", {True: (64, 64, 1), False: (64, 64, 64)})
    tiled, tiled_sizes = heat_map(array, runner(network, "cpu"), geometry)
    assert whole.shape == (1, 75, 45, 1)
    np.testing.assert_allclose(whole[:, 4:-4, 4:-4], tiled[:, 4:-4, 4:-4], atol=1e-4)
    np.testing.assert_allclose(sizes[:, 4:-4, 4:-4], tiled_sizes[:, 4:-4, 4:-4], atol=1e-3)


def test_trees_as_plain_numbers_score_as_the_library_does() -> None:
    from sklearn.ensemble import GradientBoostingClassifier

    from vesalius.learning.detect_judge import _TREES

    rng = np.random.default_rng(0)
    table = rng.normal(size=(300, len(FEATURES)))
    truth = table[:, 0] + 0.5 * rng.normal(size=300) > 1
    ours = with_trees(table, truth, 3, share=1.0)
    library = GradientBoostingClassifier(random_state=3, **_TREES).fit(table, truth)
    np.testing.assert_allclose(ours.scores(table), library.predict_proba(table)[:, 1], atol=1e-5)
    again = SecondLook.from_json(ours.as_json())
    np.testing.assert_allclose(again.scores(table), ours.scores(table))


def test_sure_networks_export_without_rounding() -> None:
    """Where networks are all but certain, the mean of their probabilities must not lose its digits."""
    from vesalius.learning.export import check_volume, export_module
    from vesalius.networks.detector import DetectorEnsemble

    torch.manual_seed(0)
    networks = [detector(5, 1, 2, (8, 8, 8)).eval() for _ in range(2)]
    for network in networks:
        with torch.no_grad():
            network.planar.heat.weight.mul_(100)  # type: ignore[union-attr, operator]
    whole = DetectorEnsemble(networks)
    free = {0: "n", 2: "i", 3: "j"}
    image = check_volume(5, (32, 32, 1))
    export_module(whole, image, {"image": free, "heat": free, "size": free})
    heat, _ = whole(torch.from_numpy(image))
    mean = torch.stack([n(torch.from_numpy(image))[0].double().sigmoid() for n in networks]).mean(0)
    assert torch.allclose(heat.double().sigmoid(), mean, atol=1e-4)


def test_a_view_and_back() -> None:
    rng = np.random.default_rng(0)
    image = image_of(rng.normal(size=(1, 50, 41, 30)).astype(np.float32), "v", (-1.0, 2.0, 3.0))
    seen = view(image, ViewRecipe((2.5, 2.5, 3.0)))
    place, size = seen.to_view((10.0, 20.0, 5.0), (4.0, 5.0, 6.0))
    centre, back = seen.to_source(place, size)
    assert centre == pytest.approx((10.0, 20.0, 5.0)) and back == pytest.approx((4.0, 5.0, 6.0))


def both_breasts(number: int, symmetric: bool) -> list[Judged]:
    """A case's two mammograms: marks at three places in either breast, and in every third one a lesion of its own."""
    rng = np.random.default_rng(number)
    body = np.ones((5, 64, 80, 1), np.float32)
    grid = Grid((64, 80, 1), np.eye(4), None, False, "pixel")
    places = np.array([[20.0, 20.0, 0.0], [20.0, 60.0, 0.0], [50.0, 40.0, 0.0]])
    none = np.zeros((0, 3))
    made = []
    for side, role in enumerate(("MLO-L", "MLO-R")):
        sick = side == 0 and number % 3 == 0
        lesion = np.array([[30.0, 40.0, 0.0]]) if sick else none
        seen = View(body, (1.0, 1.0, 1.0), False, grid, breast=True)
        image = LookedOver(f"c{number}", f"p{number}", f"i{number}-{side}", role, seen, np.zeros(len(lesion), int),
                           lesion, np.full((len(lesion), 3), 10.0), places)  # fmt: skip
        own = places if symmetric else places[[number % 3]] if side == 0 else none
        centres = np.concatenate([own, lesion])
        heat = np.sort(rng.uniform(0.4, 0.6, len(centres)))
        table = np.zeros((len(centres), len(FEATURES)))
        table[:, 0] = np.log(heat / (1 - heat))
        made.append(Judged(image, 0, Candidates(centres, np.full((len(centres), 3), 10.0), heat), table))
    return made


def film(number: int, right: bool, role: str) -> Image:
    """A drawn mammogram with a spot that lies elsewhere in each."""
    i, j = np.meshgrid(np.arange(96), np.arange(120), indexing="ij")
    plane = np.where((i / 70) ** 2 + ((j - 60) / 56) ** 2 < 1, 100.0, 0.0)
    plane += np.random.default_rng(number).normal(0, 2, plane.shape)
    plane[20 + number : 30 + number, 40:50] += 60
    grid = Grid((96, 120, 1), np.eye(4), None, False, "pixel")
    array = (plane[::-1] if right else plane)[None, ..., None].astype(np.float32).copy()
    return Image(f"f{number}", grid, role, Kind.INTENSITY, "MG", 1, Held(array))


def test_training_and_bedside_compare_breasts_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fit says in the card is used by the detector that reads it, on the same tables."""
    tables: list[list[np.ndarray]] = []

    def fixed(judged: Sequence[Judged], seed: int, together: bool) -> Scoring:
        assert together
        scores = [item.found.heat for item in judged]
        tables.append([item.table for item in _with_other_views([Turn(judged, scores)])[0]])
        weights = np.array([1.0, 0, 0, 0, 0])
        return Scoring(None, None, OtherViews(np.zeros(5), np.ones(5), weights, 0.0), ())

    def noted(*args: Any) -> list[np.ndarray]:
        tables.append(tables_of(*args))
        return tables[-1]

    cases = []
    for number in range(4):
        images = (film(2 * number, False, "MLO-L"), film(2 * number + 1, True, "MLO-R"))
        place = Point(images[0].id, (25.0 + 2 * number, 45.0, 0.0), 5.0)
        assessed = frozenset(image.id for image in images)
        cases.append(Case(f"c{number}", f"p{number}", images, (Finding("lesion", place=place),), {}, assessed))
    cohort = Cohort("films", tmp_path / "cohort", tuple(cases), digest="d")
    plan = first_plan([(case, LESION.places(case)) for case in cases], 2, "cpu", 1)
    plan = replace(plan, steps=5, view=replace(plan.view, mammogram=True))
    monkeypatch.setattr("vesalius.learning.detect.fit_scoring", fixed)
    monkeypatch.setattr("vesalius.inference.detector.tables_of", noted)
    fitted = fit(cohort, tmp_path, plan=plan.as_json())
    assert fitted.card["other_views"]["weights"] == [1.0, 0, 0, 0, 0]
    learned = tables.pop()
    assert len(learned) == 8 and all(np.isfinite(table[:, 1:3]).all() for table in learned)
    model = loaded(fitted, tmp_path / "model")
    model.predict(cases[0].images)
    left, right = tables.pop()
    assert np.isfinite(left[:, 1:3]).all() and np.isfinite(right[:, 1:3]).all()
    assert np.isnan(left[:, 3:]).all() and np.isnan(np.concatenate(learned)[:, 3:]).all()
    model.predict(cases[0].images[:1])
    assert np.isnan(tables.pop()[0][:, 1:]).all()


def test_the_opposite_breast_counts_where_it_helps() -> None:
    helped = fit_scoring([item for n in range(60) for item in both_breasts(n, True)], 0)
    assert helped.others is not None and helped.said[-1] == "The other views count."
    assert helped.others.weights[1] < 0  # what both breasts show is normal
    alone = [item for n in range(60) for item in both_breasts(n, True)[:1]]
    assert fit_scoring(alone, 0).others is None
    assert not any("opposite" in said for said in fit_scoring(alone, 0).said)


def test_scores_stand_for_the_false_positives_that_they_left() -> None:
    items = [item for n in range(60) for item in both_breasts(n, True)]
    scoring = fit_scoring(items, 0)
    turn = Turn(items, [item.found.heat for item in items])
    wrong = np.concatenate([item.found.heat[~item.hit.any(1)] for item in items])
    for rate, score in zip((0.5, 1, 2), _alarm_scores([turn], 0), strict=False):
        assert (wrong > score).sum() == rate * len(items)
    assert list(scoring.alarms[0]) == sorted(scoring.alarms[0], reverse=True) and scoring.alarms[0][3] == 0
    assert scoring.triage is not None and 0 < scoring.triage < 1


def test_the_opposite_breast_does_not_count_where_it_does_not_help() -> None:
    scoring = fit_scoring([item for n in range(60) for item in both_breasts(n, False)], 0)
    assert scoring.others is None and scoring.said[-1].startswith("The other views do not count")
