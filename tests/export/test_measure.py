import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.export import measure
from stillroom.export.measure import TORCH_TEACHER, cold_start, latencies_ms, machine, throughput
from stillroom.export.runtime import Package
from tests.conftest import SOURCE_ROOT
from tests.toys import publish_teacher, toy_rows

TEXTS = [f"text {number}" for number in range(23)]


class Clock:
    """Time that passes only while a predictor works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        monkeypatch.setattr("time.perf_counter_ns", lambda: self.now_ns)

    def predictor(self, ms: float, heard: list[str]) -> Any:
        def predict(text: str) -> str:
            heard.append(text)
            self.now_ns += int(ms * 1e6)
            return text

        return predict


def test_latency_is_that_of_one_text_whatever_its_neighbours_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    heard: dict[str, list[str]] = {"slow": [], "fast": []}
    predictors = {"slow": clock.predictor(50, heard["slow"]), "fast": clock.predictor(0.25, heard["fast"])}
    found = latencies_ms(predictors, TEXTS, {"fast": 4})
    assert found == {"slow": {"p50": 50.0, "p95": 50.0}, "fast": {"p50": 0.25, "p95": 0.25}}
    for name, times in (("slow", 1), ("fast", 4)):
        timed = Counter(heard[name])
        assert set(timed) == set(TEXTS), "every text is timed"
        assert sum(timed.values()) == times * len(TEXTS) + 15
        assert min(timed.values()) == times


def test_slow_texts_show_in_the_95th_percentile_and_not_in_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def predict(text: str) -> None:
        clock.now_ns += int((100 if text.endswith("7") else 1) * 1e6)

    found = latencies_ms({"one": predict}, TEXTS, {})["one"]
    assert found["p50"] == 1
    assert found["p95"] > 90


def test_predictors_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    turns: list[str] = []
    latencies_ms({name: lambda text, name=name: turns.append(name) for name in "ab"}, TEXTS, {})
    changes = sum(one != other for one, other in pairwise(turns))
    assert changes == 9


def test_few_texts_are_enough() -> None:
    for count in (1, 2, 4):
        found = latencies_ms({"one": len}, TEXTS[:count], {})
        assert 0 <= found["one"]["p50"] <= found["one"]["p95"]


@pytest.mark.parametrize(("times", "best"), [((0.0, 4.0, 10.0, 12.0), 2.0), ((0.0, 2.0, 10.0, 14.0), 2.0)])
def test_throughput_counts_rows_of_the_better_pass(
    monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], best: float
) -> None:
    left = iter(times)
    monkeypatch.setattr("time.perf_counter", lambda: next(left))
    assert throughput(len, TEXTS) == (len(TEXTS) / best, len(TEXTS))
    assert not list(left)


def test_a_long_pass_is_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 5.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert throughput(len, TEXTS) == (len(TEXTS) / 5, len(TEXTS))


def test_throughput_hands_out_what_a_package_predicts(built: Path) -> None:
    package = Package.load(built / "fp32")
    rows_per_s, answers = throughput(package.predict, TEXTS)
    assert rows_per_s > 0
    np.testing.assert_allclose(answers, package.predict(TEXTS), atol=1e-6)


def test_a_cold_start_is_measured_in_a_process_of_its_own(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE_ROOT))
    found = cold_start(built / "int8", toy_rows(30, seed=2).text)
    assert found.keys() == {"load_ms", "peak_memory_bytes"}
    assert 1 < found["load_ms"] < 120_000
    assert 20e6 < found["peak_memory_bytes"] < 500e6, "of a process without torch"


def test_a_teacher_in_pytorch_is_measured_as_a_package_is(
    built: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE_ROOT))
    texts = toy_rows(30, seed=2).text
    found = cold_start(publish_teacher(tmp_path / "teacher", tiny_checkpoint), texts, TORCH_TEACHER)
    package = cold_start(built / "int8", texts)
    assert found.keys() == package.keys()
    assert found["load_ms"] > package["load_ms"], "it imports torch"
    assert found["peak_memory_bytes"] > 2 * package["peak_memory_bytes"]


def test_a_cold_start_predicts_the_first_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    heard = tmp_path / "heard.json"
    load = f"def predict(texts): open({str(heard)!r}, 'w').write(json.dumps([sys.argv[1], *texts]))"
    cold_start(tmp_path, TEXTS, load)
    assert json.loads(heard.read_text()) == [str(tmp_path), *TEXTS]
    monkeypatch.setattr(measure, "_COLD_TEXTS", 5)
    cold_start(tmp_path, TEXTS, load)
    assert json.loads(heard.read_text()) == [str(tmp_path), *TEXTS[:5]]


def test_texts_of_any_kind_reach_that_process(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE_ROOT))
    assert cold_start(built / "int8", ["", "é☃\n\x00", "x" * 300_000])["load_ms"] > 0


def test_the_machine_is_told() -> None:
    found = machine()
    assert found["cpu"]
    assert found["cores"] == os.cpu_count()
    assert 1 <= found["threads"] <= found["cores"]
