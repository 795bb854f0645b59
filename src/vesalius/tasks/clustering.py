"""Clustering: are there groups among the cases, and which cases are like no other? No labels are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted, Prediction, Rival
from vesalius.core.report import Metric, Picture, Plot, Score, Series, Table
from vesalius.measures.intervals import bootstrap_means
from vesalius.measures.summary import MODEL, OVERALL
from vesalius.tasks import cluster_pictures as drawing

ANOMALY = "anomaly"
UNUSUAL = 0.95  # a case more unusual than this share of training cases counts as unusual


class Clustering:
    """Describes how new cases fall into the groups that were found.

    Args:
        card: of the model; empty before there is one.
    """

    name: str = "clustering"
    primary: str = "silhouette"

    def __init__(self, card: Mapping[str, Any] | None = None) -> None:
        self._card = dict(card or {})

    @classmethod
    def between(cls, cohort: Cohort | None, card: Mapping[str, Any]) -> Clustering:
        """The task for the model of this card; every cohort with images will do."""
        return cls(card)

    def problems(self, cohort: Cohort) -> list[str]:
        """Too few patients to tell groups from chance."""
        from vesalius.classical.clusters.fit import LEAST_CASES

        if len(cohort.patients) < LEAST_CASES:
            return [f"Groups need at least {LEAST_CASES} patients; there are {len(cohort.patients)}. Ingest more."]
        return []

    def usable(self, case: Case) -> bool:
        """Every case with an image."""
        return bool(case.images)

    def default_inputs(self, cohort: Cohort) -> tuple[str, ...]:
        """None: every image of a case."""
        return ()

    def card(self, cohort: Cohort) -> dict[str, Any]:
        """Nothing but what learning adds."""
        return {"classes": self._card.get("classes", [])}

    def learn(self, cohort: Cohort, train: Sequence[Case], settings: Any, work: Path, progress: Progress) -> Fitted:
        """Look for groups; see `classical.clusters.fit.fit_clusters`."""
        from vesalius.classical.clusters.fit import fit_clusters

        return fit_clusters(
            train, settings.inputs, seconds=30.0 * settings.minutes, seed=settings.seed, progress=progress
        )

    def rival(self, cohort: Cohort) -> Rival | None:
        """None: the groups are those of hand-designed features, held against clouds without groups instead."""
        return None

    def score(self, arm: str, case: Case, prediction: Prediction) -> list[Score]:
        """Membership of each group, silhouette, how unusual the case is, and its place on the map."""
        details = prediction.details
        rows = [
            Score(arm, case.id, case.patient, finding.name, "membership", finding.score)
            for finding in prediction.findings
            if finding.name != ANOMALY
        ]
        anomaly = [finding.score for finding in prediction.findings if finding.name == ANOMALY]
        values = {"silhouette": float(details.get("silhouette", np.nan))}
        values["anomaly"] = anomaly[0] if anomaly else np.nan
        values["unusual"] = float(anomaly[0] > UNUSUAL) if anomaly else np.nan
        values |= {f"axis_{n + 1}": float(value) for n, value in enumerate(details.get("coordinates", ()))}
        return rows + [Score(arm, case.id, case.patient, OVERALL, name, value) for name, value in values.items()]

    def metrics(self, scores: Sequence[Score], *, seed: int) -> tuple[Metric, ...]:
        """Share of cases in each group, mean silhouette, and the share that is unusual, over patients."""
        cases = list(dict.fromkeys(score.case for score in scores))
        patients = {score.case: score.patient for score in scores}
        groups = self._assigned(scores)
        columns = {("share_of_cases", name): [float(groups[c] == name) for c in cases] for name in self._names()}
        own = {(score.case, score.name): score.value for score in scores if score.class_name == OVERALL}
        for name in ("silhouette", "unusual"):
            columns[name, OVERALL] = [own.get((case, name), np.nan) for case in cases]
        table = np.array(list(columns.values())).T
        intervals = bootstrap_means(table, [patients[case] for case in cases], seed=seed)
        return tuple(
            Metric(MODEL, name, group, interval.value, interval.low, interval.high, interval.n)
            for (name, group), interval in zip(columns, intervals, strict=True)
            if interval is not None
        )

    def rank(self, scores: Sequence[Score]) -> dict[str, float]:
        """The most unusual cases first."""
        return {score.case: -score.value for score in scores if score.name == "anomaly" and np.isfinite(score.value)}

    def sentences(self, scores: Sequence[Score], metrics: Sequence[Metric], arms: Mapping[str, str]) -> list[str]:
        """What was found in training, how new cases fall into it, and which covariates go with it."""
        found = list(self._card.get("sentences", ()))
        unusual = next((metric for metric in metrics if metric.name == "unusual"), None)
        if unusual is not None:
            found.append(
                f"{unusual.value:.0%} ({unusual.low:.0%} to {unusual.high:.0%}) of {unusual.n} patients measured here"
                f" are more unusual than {UNUSUAL:.0%} of the training cases; {1 - UNUSUAL:.0%} are expected if they"
                " are alike."
            )
        sure = [test for test in self._card.get("associations", ()) if test["adjusted"] < 1 - UNUSUAL]
        if sure:
            named = ", ".join(f"{test['covariate']} (adjusted p = {test['adjusted']:.2g})" for test in sure)
            found.append(f"The groups of the training cases differ in {named}.")
        elif self._card.get("associations"):
            found.append("The groups of the training cases differ in none of the covariates, many tests counted.")
        return found

    def tables(self, scores: Sequence[Score]) -> list[Table]:
        """What was tried, and the covariates against the groups."""
        tried = self._card.get("structure", {}).get("tried", ())
        keys = ("name", "groups", "stability", "separation", "chance", "excess")
        heads = ("Way of grouping", "Groups", "Stability", "Separation", "Product by chance", "Above chance")
        tables = [Table("What was tried", heads, tuple(tuple(row[key] for key in keys) for row in tried))]
        tests = self._card.get("associations", ())
        columns = ("covariate", "test", "effect", "probability", "adjusted", "n")
        names = ("Covariate", "Test", "Effect", "p", "p, all tests counted (Holm)", "Patients")
        if tests:
            rows = tuple(tuple(test[column] for column in columns) for test in tests)
            tables.append(Table("Groups of the training cases and covariates", names, rows))
        return tables if tried else tables[1:]

    def plots(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Plot]:
        """Where the cases lie along the two widest directions, by group."""
        own = {(score.case, score.name): score.value for score in scores if score.class_name == OVERALL}
        groups = self._assigned(scores)
        series = []
        for name in self._names():
            inside = [case for case, group in groups.items() if group == name and (case, "axis_1") in own]
            x = tuple(own[case, "axis_1"] for case in inside)
            series.append(Series(name, x, tuple(own.get((case, "axis_2"), 0.0) for case in inside)))
        return [Plot("Cases along the two widest directions", "First direction", "Second direction", tuple(series))]

    def pictures(self, case: Case, predictions: Mapping[str, Prediction], scores: Sequence[Score]) -> list[Picture]:
        """The images of one case, with how unusual it is."""
        value = next(score.value for score in scores if score.case == case.id and score.name == "anomaly")
        group = self._assigned(scores)[case.id]
        return [drawing.case_picture(case, f"{group}; more unusual than {value:.0%} of the training cases.")]

    def overview(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Picture]:
        """The map with a thumbnail for each case, and the most typical cases of each group."""
        own = {(score.case, score.name): score.value for score in scores if score.class_name == OVERALL}
        axes = sum(1 for name in {score.name for score in scores} if name.startswith("axis_"))
        points = {
            case.id: [own[case.id, f"axis_{n + 1}"] for n in range(axes)]
            for case in cases
            if (case.id, "axis_1") in own
        }
        groups = self._assigned(scores)
        typical = {
            name: sorted(
                (case for case in cases if groups.get(case.id) == name),
                key=lambda case: own.get((case.id, "anomaly"), 1.0),
            )
            for name in self._names()
        }
        return [*drawing.map_picture(cases, points, groups, self._names()), *drawing.typical_picture(typical)]

    def _names(self) -> list[str]:
        return [str(entry["name"]) for entry in self._card.get("classes", ())]

    def _assigned(self, scores: Sequence[Score]) -> dict[str, str]:
        """The group that each case belongs to most."""
        best: dict[str, tuple[float, str]] = {}
        for score in scores:
            if score.name == "membership" and score.value > best.get(score.case, (-1.0, ""))[0]:
                best[score.case] = score.value, score.class_name
        return {case: name for case, (_, name) in best.items()}
