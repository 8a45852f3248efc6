"""Seed to seed: which students are one recipe, and how far apart they are."""

import statistics
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from stillroom.gate.select import Judged, summarise, with_spreads
from stillroom.gate.spread import twins
from stillroom.gate.verdict import judge
from stillroom.gate_params import GateParams
from stillroom.student_params import Student
from tests.gate.evaluations import NAMES, labels_of, with_mistakes
from tests.gate.test_verdict import SHA, evidence

ADAPTER: TypeAdapter[Student] = TypeAdapter(Student)
LABELS = labels_of(400)


def students(**given: dict[str, Any]) -> dict[str, Student]:
    return {name: ADAPTER.validate_python({"family": "static", **settings}) for name, settings in given.items()}


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ({"a": {}, "b": {"seed": 1}, "c": {"seed": 2}}, [{"a": 7, "b": 1, "c": 2}]),
        ({"a": {}, "b": {"seed": 1, "hidden": 64}}, []),
        ({"a": {}, "b": {"family": "cnn", "seed": 1}}, []),
        ({"a": {}, "b": {"seed": 7}}, []),
        ({"a": {}, "b": {"seed": 7}, "c": {"seed": 1}}, [{"a": 7, "c": 1}]),
        (
            {"a": {"seed": 1}, "x": {"hidden": 64}, "b": {"seed": 2}, "y": {"hidden": 64, "seed": 3}},
            [{"a": 1, "b": 2}, {"x": 7, "y": 3}],
        ),
        ({"a": {"family": "auto"}, "b": {"family": "auto"}}, []),
    ],
)
def test_twins_differ_in_their_seed_alone(given: dict[str, dict[str, Any]], groups: list[dict[str, int]]) -> None:
    assert list(twins(students(**given), seed=7)) == groups


def judged(name: str, mistakes: int) -> Judged:
    found = evidence(LABELS, with_mistakes(LABELS, mistakes), with_mistakes(LABELS, 8))
    found = replace(found, evaluation=found.evaluation.model_copy(update={"name": name}))
    gate = GateParams(resamples=200, retention={"accuracy": 0.9, "macro_f1": 0.9})
    return Judged(found.evaluation, judge(found, gate, NAMES, SHA, 0))


def test_the_spread_is_told_of_every_figure_and_changes_no_verdict() -> None:
    alone = [judged(name, mistakes) for name, mistakes in (("a", 10), ("b", 14), ("c", 12), ("other", 20))]
    told = with_spreads(alone, [{"a": 0, "b": 1, "c": 2}])
    found = told[0].report.seeds
    assert found is not None
    assert (found.students, found.seeds) == (("a", "b", "c"), (0, 1, 2))
    points = [one.report.retention["macro_f1"].point for one in alone[:3]]
    of = found.retention["macro_f1"]
    expected = (statistics.mean(points), statistics.stdev(points), min(points), max(points))
    assert (of.mean, of.deviation, of.least, of.most) == pytest.approx(expected)
    assert (found.accuracy.least, found.accuracy.most) == (386 / 400, 390 / 400)
    assert told[1].report.seeds == told[2].report.seeds == found
    assert told[3] == alone[3]
    assert [one.report.model_copy(update={"seeds": None}) for one in told] == [one.report for one in alone]
    (summed,) = summarise(told, {"test": 400}, SHA)["seeds"]
    assert summed["retention"]["macro_f1"]["deviation"] == of.deviation
    assert summarise(alone, {"test": 400}, SHA)["seeds"] == []


def test_a_retention_that_one_lacks_has_no_spread() -> None:
    whole, part = judged("a", 10), judged("b", 12)
    kept = {"accuracy": part.report.retention["accuracy"]}
    part = Judged(part.evaluation, part.report.model_copy(update={"retention": kept}))
    found = with_spreads([part, whole], [{"a": 0, "b": 1}])[0].report.seeds
    assert found is not None
    assert list(found.retention) == ["accuracy"]
