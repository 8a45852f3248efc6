import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillroom.errors import Diverged, InputError
from stillroom.student_params import AutoParams, Checkpoint, FixedStudent, PretrainedParams, SlicedParams, StaticParams
from stillroom.students.family import Cost
from stillroom.students.search import Asked, Found, Measured, Search
from stillroom.students.shortlist import Level, levels
from stillroom.teacher.model import layers_of

TEACHER = 0.9


def asked(**changes: Any) -> Asked:
    settings = AutoParams(family="auto", **{"retention": 0.95, "margin": 0.0} | changes)
    return Asked(settings, {"accuracy": TEACHER, "macro_f1": 0.8})


def static(**changes: Any) -> StaticParams:
    return StaticParams(family="static", epochs=9, **changes)


def reaching(accuracy: float, latency_ms: float = 1.0, size_bytes: int = 1000, macro_f1: float = 0.5) -> Measured:
    return Measured(
        accuracy=accuracy,
        macro_f1=macro_f1,
        fp32_accuracy=accuracy,
        latency_p50_ms=latency_ms,
        latency_p95_ms=latency_ms,
        size_bytes=size_bytes,
        params=10,
        quantisation="dynamic_int8",
        seconds=0.0,
    )


def cost_of(student: FixedStudent) -> Cost:
    dear = student.layers if isinstance(student, SlicedParams) else 0
    return Cost(params=100 * (1 + dear), flops_per_token=1 + dear, flops_per_text=1, bytes_per_token=1)


class Bench:
    """Runs whose outcome is known; `ran` are the settings in order."""

    def __init__(self, folder: Path, outcome: Callable[[FixedStudent], Measured]) -> None:
        self.folder = folder
        self.outcome = outcome
        self.ran: list[FixedStudent] = []

    def run(self, student: FixedStudent, folder: Path) -> Measured:
        self.ran.append(student)
        folder.mkdir(parents=True, exist_ok=True)
        return self.outcome(student)

    def of(self, student: FixedStudent) -> Path:
        return self.folder / hashlib.sha256(student.model_dump_json().encode()).hexdigest()

    def find(self, wanted: Asked, tried: list[Level]) -> Found:
        return Search(wanted, 20.0, cost_of, self.of, self.run).find(tried)


CHEAP = Level("static", (static(), static(objective="mse"), static(hidden=8), static(temperature=4.0)))
DEAR = Level("sliced-2", (SlicedParams(family="sliced", layers=2),))


def test_the_first_that_holds_ends_the_search_and_nothing_dearer_is_trained(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda student: reaching(0.89))
    found = bench.find(asked(), [DEAR, CHEAP])
    assert found.settings == CHEAP.candidates[0]
    assert bench.ran == [CHEAP.candidates[0]]


def test_a_level_that_comes_near_has_its_recipes_tried_and_the_better_half_trained_whole(tmp_path: Path) -> None:
    def outcome(student: FixedStudent) -> Measured:
        if student.objective == "mse":
            return reaching(0.87 if student.epochs == 9 else 0.86)
        return reaching(0.85 if student.temperature == 4.0 else 0.84)

    bench = Bench(tmp_path, outcome)
    found = bench.find(asked(), [CHEAP, DEAR])
    assert found.settings == CHEAP.candidates[1]
    assert [student.epochs for student in bench.ran] == [9, 3, 3, 3, 9]
    assert [trial.whole for trial in found.trials] == [True, False, False, False, True]


def test_a_short_training_never_wins(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda student: reaching(0.89 if student.epochs == 3 else 0.84))
    found = bench.find(asked(), [CHEAP])
    assert found.settings.epochs == 9
    assert any(not trial.lacks for trial in found.trials if not trial.whole)


def test_a_level_far_from_the_retention_is_left_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda student: reaching(0.89 if student.family == "sliced" else 0.6))
    assert bench.find(asked(), [CHEAP, DEAR]).settings == DEAR.candidates[0]
    assert len(bench.ran) == 2


def test_where_none_holds_the_best_within_the_budgets_is_given(tmp_path: Path) -> None:
    def outcome(student: FixedStudent) -> Measured:
        return reaching(0.8, latency_ms=9.0) if student.family == "sliced" else reaching(0.7)

    bench = Bench(tmp_path, outcome)
    assert bench.find(asked(max_latency_p95_ms=5.0), [CHEAP, DEAR]).settings.family == "static"
    bench = Bench(tmp_path / "free", outcome)
    assert bench.find(asked(), [CHEAP, DEAR]).settings.family == "sliced"


def test_budgets_that_no_student_keeps_name_the_nearest(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda student: reaching(0.89, latency_ms=3.0 if student.family == "static" else 9.0))
    with pytest.raises(InputError, match=r"nearest is static#0 with 3 ms \(p95\) and 1000 bytes; raise max_latency"):
        bench.find(asked(max_latency_p95_ms=1.0), [CHEAP, DEAR])


def test_a_package_size_below_all_weights_is_refused_before_any_training(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda student: reaching(0.89))
    with pytest.raises(InputError, match="max_package_bytes is 99; the smallest student has 100 weights"):
        bench.find(asked(max_package_bytes=99), [CHEAP, DEAR])
    assert bench.ran == []


def test_a_level_whose_weights_exceed_the_package_is_not_trained(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda student: reaching(0.6, size_bytes=90))
    bench.find(asked(max_package_bytes=150), [CHEAP, DEAR])
    assert {student.family for student in bench.ran} == {"static"}


def test_dearer_levels_of_a_family_that_is_too_slow_are_left_out(tmp_path: Path) -> None:
    deeper = [Level(f"sliced-{n}", (SlicedParams(family="sliced", layers=n),)) for n in (1, 2, 4)]
    bench = Bench(tmp_path, lambda student: reaching(0.6, latency_ms=1.0 if student.family == "static" else 9.0))
    found = bench.find(asked(max_latency_p95_ms=5.0), [*deeper, CHEAP])
    assert [trial.level for trial in found.trials] == ["static", "sliced-1"]


@pytest.mark.parametrize("error", [Diverged("the loss is nan"), InputError("the graph differs")])
def test_a_trial_that_fails_is_told_and_the_search_goes_on(tmp_path: Path, error: Exception) -> None:
    def outcome(student: FixedStudent) -> Measured:
        if student == CHEAP.candidates[0]:
            raise error
        return reaching(0.89)

    bench = Bench(tmp_path, outcome)
    found = bench.find(asked(), [CHEAP, DEAR])
    assert found.settings in CHEAP.candidates[1:]
    assert (found.trials[0].measured, found.trials[0].retention) == (None, None)
    assert found.trials[0].lacks == (f"failed: {error}",)


def test_where_every_trial_fails_the_first_error_is_raised(tmp_path: Path) -> None:
    def outcome(student: FixedStudent) -> Measured:
        raise Diverged(f"{student.family} diverged")

    with pytest.raises(Diverged, match="static diverged"):
        Bench(tmp_path, outcome).find(asked(), [DEAR, CHEAP])


def test_a_family_that_the_teacher_does_not_allow_is_left_out_and_refused_only_if_none_is_left(tmp_path: Path) -> None:
    def cost(student: FixedStudent) -> Cost:
        if student.family == "sliced":
            raise InputError("cannot be sliced")
        return cost_of(student)

    bench = Bench(tmp_path, lambda student: reaching(0.6))
    found = Search(asked(), 20.0, cost, bench.of, bench.run).find([DEAR, CHEAP])
    assert {trial.level for trial in found.trials} == {"static"}
    with pytest.raises(InputError, match="cannot be sliced"):
        Search(asked(), 20.0, cost, bench.of, bench.run).find([DEAR])


def test_what_was_tried_is_not_tried_again_though_other_budgets_are_asked(tmp_path: Path) -> None:
    def breaks(student: FixedStudent) -> Measured:
        if student.family == "sliced":
            raise KeyboardInterrupt
        return reaching(0.6, latency_ms=2.0)

    with pytest.raises(KeyboardInterrupt):
        Bench(tmp_path, breaks).find(asked(), [CHEAP, DEAR])
    again = Bench(tmp_path, lambda student: reaching(0.89))
    found = again.find(asked(max_latency_p95_ms=1.5), [CHEAP, DEAR])
    assert [student.family for student in again.ran] == ["sliced"]
    assert [trial.level for trial in found.trials] == ["static", "sliced-2"]
    assert found.trials[0].lacks[-1] == "p95 2 ms is above 1.5 ms", "judged by what is asked now"


def test_what_a_package_lacks_is_told_with_its_figures() -> None:
    wanted = asked(max_latency_p95_ms=0.5, max_package_bytes=10)
    assert wanted.lacks(reaching(0.72)) == (
        "retention of accuracy 0.8000 is below 0.95",
        "p95 1 ms is above 0.5 ms",
        "package of 1000 bytes is above 10",
    )
    assert asked().lacks(reaching(0.95 * TEACHER + 1e-9)) == ()


def test_every_metric_that_is_asked_for_is_held(tmp_path: Path) -> None:
    wanted = asked(retention={"accuracy": 0.95, "macro_f1": 0.9}, margin=0.01)
    assert wanted.lacks(reaching(0.88, macro_f1=0.7)) == ("retention of macro_f1 0.8750 is below 0.91",)
    assert wanted.lacks(reaching(0.8, macro_f1=0.8)) == ("retention of accuracy 0.8889 is below 0.96",)
    assert wanted.lacks(reaching(0.88, macro_f1=0.74)) == ()

    def outcome(student: FixedStudent) -> Measured:
        return reaching(0.9, macro_f1=0.74 if student.family == "sliced" else 0.6)

    found = Bench(tmp_path, outcome).find(wanted, [CHEAP, DEAR])
    assert found.settings.family == "sliced"
    assert [trial.retention for trial in found.trials] == pytest.approx([0.75, 0.925]), "of what has least to spare"
    assert asked(retention={"macro_f1": 0.9}).lacks(reaching(0.1, macro_f1=0.8)) == ()


def test_where_none_holds_the_one_nearest_in_all_metrics_is_the_best(tmp_path: Path) -> None:
    wanted = asked(retention={"accuracy": 0.95, "macro_f1": 0.9})
    bench = Bench(
        tmp_path,
        lambda student: reaching(0.85, macro_f1=0.7) if student.family == "sliced" else reaching(0.9, macro_f1=0.5),
    )
    assert bench.find(wanted, [CHEAP, DEAR]).settings.family == "sliced"


def test_a_metric_that_the_teacher_has_none_of_is_refused() -> None:
    with pytest.raises(InputError, match="the teacher's macro_f1 on the validation rows is 0"):
        Asked(AutoParams(family="auto", retention={"macro_f1": 0.9}), {"accuracy": 0.1, "macro_f1": 0.0})


class Encoder(nn.Module):
    """As much of an encoder as is looked at."""

    def __init__(self, layers: int, heads: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=layers, num_attention_heads=heads, hidden_size=26 * heads)
        self.layers = nn.ModuleList(nn.Identity() for _ in range(layers))


@given(
    layers=st.integers(1, 24),
    heads=st.integers(1, 16),
    families=st.permutations(["static", "cnn", "bilstm", "sliced", "narrow"]).map(tuple),
    trials=st.integers(1, 9),
    unseen=st.booleans(),
)
def test_levels_are_made_of_settings_that_a_teacher_allows(
    layers: int, heads: int, families: tuple[str, ...], trials: int, unseen: bool
) -> None:
    given = {"max_vocabulary": 500, "doubt": 0.5, "dissent": 0.25}
    asked = {"families": families, "trials": trials, "max_length": 64, "unseen_pieces": unseen, **given}
    settings = AutoParams(family="auto", **asked)  # type: ignore[arg-type]
    made = levels(settings, Encoder(layers, heads), 32, "single_label")
    assert {level.candidates[0].family for level in made} == set(families)
    assert len({level.name for level in made}) == len(made)
    for level in made:
        assert 1 <= len(level.candidates) <= trials
        assert len(set(map(repr, level.candidates))) == len(level.candidates)
        for student in level.candidates:
            assert student.max_length == 32
            assert student.model_dump(include=given.keys()) == given
            assert student.keeps_unseen == (unseen and student.family in ("sliced", "narrow"))
            assert getattr(student, "layers", 1) <= max(1, layers - 1)
            assert getattr(student, "width", 26) % 26 == 0
            assert getattr(student, "width", 26) <= 26 * heads
            assert student.patience is None  # none is stopped while its steps are large


def test_no_recipe_sets_one_class_against_all_others_where_texts_have_several_labels() -> None:
    settings = AutoParams(family="auto", families=("static",), trials=9)
    recipes = {
        problem: [student.objective for student in levels(settings, nn.Identity(), 32, problem)[0].candidates]
        for problem in ("single_label", "multi_label")
    }
    assert "dkd" in recipes["single_label"]
    assert set(recipes["multi_label"]) == {"kl", "mse"}


def test_an_encoder_of_ones_own_is_a_level_beside_the_families() -> None:
    checkpoint = Checkpoint(source="own", sha256="0" * 64)
    settings = AutoParams(family="auto", families=("static",), checkpoint=checkpoint, trials=2, unseen_pieces=True)
    made = levels(settings, nn.Identity(), 32, "single_label")
    assert [level.name for level in made] == ["static", "pretrained"]
    for student in made[1].candidates:
        assert isinstance(student, PretrainedParams)
        assert (student.checkpoint, student.layers, student.keeps_unseen) == (checkpoint, None, True)
        assert student.patience is None


def test_a_search_beside_a_teacher_that_cannot_be_sliced_goes_on_without_those_families(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(vocab_size=50, hidden_size=32, embedding_size=16, num_hidden_layers=4, num_attention_heads=2)
    teacher = AlbertModel(config)
    tried = levels(AutoParams(family="auto"), teacher, 32, "single_label")

    def cost(student: FixedStudent) -> Cost:
        if student.family == "sliced":
            layers_of(teacher)
        return cost_of(student)

    bench = Bench(tmp_path, lambda student: reaching(0.6))
    found = Search(asked(), 20.0, cost, bench.of, bench.run).find(tried)
    assert {trial.level for trial in found.trials} == {"static", "cnn", "bilstm"}
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "sliced-1, sliced-2 left out: AlbertModel: has 0 lists of 4 layers" in line


def test_layers_are_counted_only_for_families_that_ask_for_them() -> None:
    settings = AutoParams(family="auto", families=("static", "cnn"))
    assert [level.name for level in levels(settings, nn.Identity(), 32, "single_label")] == ["static", "cnn"]
