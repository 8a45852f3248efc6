from collections.abc import Iterator

import pytest
import torch

from stillroom import compute
from stillroom.cores import available_cores
from stillroom.errors import InputError
from stillroom.params import ComputeParams


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_threads_are_those_asked_for_or_every_core() -> None:
    compute.prepare(ComputeParams(threads=1))
    assert torch.get_num_threads() == 1
    compute.prepare(ComputeParams(threads=0))
    assert torch.get_num_threads() == available_cores() >= 1


def test_a_device_that_is_not_there_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"compute\.device is 'cuda'; .* use 'auto' or 'cpu'"):
        compute.device(ComputeParams(device="cuda"))
    assert compute.device(ComputeParams(device="auto")).type == "cpu"
    assert compute.device(ComputeParams(device="cpu")).type == "cpu"


def test_a_named_precision_is_taken_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_measured_precision", lambda where: pytest.fail("measured"))
    assert compute.precision(ComputeParams(precision="bf16")) == "bf16"
    assert compute.precision(ComputeParams(precision="fp32")) == "fp32"


def test_auto_takes_the_faster_product_and_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    slow = {"fp32": 3, "bf16": 1}
    compute._measured_precision.cache_clear()
    calls: list[float] = []

    def counter() -> float:
        calls.append(next(clock))
        repeat = (len(calls) - 1) // 2
        kind = "fp32" if repeat < compute._PROBE_REPEATS else "bf16"
        return float(slow[kind] if len(calls) % 2 == 0 else 0)

    monkeypatch.setattr(compute, "_PROBE_SIZE", 2)
    monkeypatch.setattr("time.perf_counter", counter)
    auto = ComputeParams(precision="auto", device="cpu")
    assert compute.precision(auto) == "bf16"
    measured = len(calls)
    assert compute.precision(auto) == "bf16"
    assert len(calls) == measured == 4 * compute._PROBE_REPEATS
    compute._measured_precision.cache_clear()
    calls.clear()
    slow["bf16"] = 4
    assert compute.precision(auto) == "fp32"
    compute._measured_precision.cache_clear()
