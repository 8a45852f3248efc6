import json
import os
from collections import Counter
from collections.abc import Sequence
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
    found = latencies_ms(predictors, TEXTS, {"slow": 10}, ["warm", "warmer"])
    assert found == {"slow": {"p50": 50.0, "p95": 50.0}, "fast": {"p50": 0.25, "p95": 0.25}}
    for name, count in (("slow", 10), ("fast", len(TEXTS))):
        assert Counter(heard[name]) == Counter([*TEXTS[:count], *5 * ["warm", "warmer"]])


def test_a_predictor_that_keeps_what_it_met_is_timed_as_if_it_kept_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    kept: set[str] = set()

    def predict(text: str) -> None:
        clock.now_ns += int((0.1 if text in kept else 5) * 1e6)
        kept.add(text)

    for _ in range(3):
        predict("warm")
    assert latencies_ms({"one": predict}, TEXTS, {}, ["warm"])["one"] == {"p50": 5, "p95": 5}


def test_without_others_a_turns_own_texts_begin_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    latencies_ms({"one": Clock(monkeypatch).predictor(1, heard)}, TEXTS, {})
    assert heard[:6] == [*TEXTS[0:15:5], *TEXTS[0:15:5]]
    assert len(heard) == len(TEXTS) + 15


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


def test_throughput_is_that_of_one_pass_over_texts_not_met_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now, heard = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def predict(texts: Sequence[str]) -> int:
        heard.append(list(texts))
        now[0] += 100.0 if len(heard) == 1 else 5.0
        return len(texts)

    assert throughput(predict, TEXTS, ["warm"]) == (len(TEXTS) / 5, len(TEXTS))
    assert heard == [["warm"], TEXTS]


def test_throughput_hands_out_what_a_package_predicts(built: Path) -> None:
    package = Package.load(built / "fp32")
    rows_per_s, answers = throughput(package.predict, TEXTS, TEXTS[:3])
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
