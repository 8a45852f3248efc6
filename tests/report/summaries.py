"""A summary of a run, as the select stage writes it."""

from typing import Any


def summary() -> dict[str, Any]:
    """Two students: good, which passes and is selected, and bad, which fails."""
    metrics = {"accuracy": 0.95, "macro_f1": 0.94, "ece": 0.02}
    latency = {"p50": 0.1, "p95": 0.2}
    student = {
        "family": "static",
        "params": 1000,
        "size_bytes": 5000,
        "quantisation": "dynamic_int8",
        "metrics": metrics,
        "baseline_metrics": metrics | {"accuracy": 0.93},
        "retention": {"accuracy": {"point": 0.99, "lower": 0.98, "upper": 1.0}},
        "latency_ms": latency,
        "tokenise_latency_ms": {"p50": 0.02, "p95": 0.03},
        "speedup": {"vs_torch_fp32": 200.0, "vs_onnx_int8": 50.0, "vs_tokenise": 0.2},
        "agreement": 0.97,
        "throughput_rows_per_s": 20_000.0,
        "load_ms": 12.0,
        "peak_memory_bytes": 90_000_000,
        "verdict": "PASS",
        "reasons": ["because"],
        "rows_to_decide": None,
        "package_digest": "p" * 64,
    }
    return {
        "task": "text-classification",
        "data": {"rows": {"train": 80, "validation": 10, "test": 40}, "sha256": "d" * 64},
        "teacher": {
            "name": "big",
            "params": 100_000,
            "size_bytes": 400_000,
            "metrics": metrics,
            "throughput_rows_per_s": 100.0,
            "load_ms": 3_000.0,
            "peak_memory_bytes": 700_000_000,
            "onnx_int8": {
                "size_bytes": 100_000,
                "metrics": metrics,
                "agreement": 0.99,
                "throughput_rows_per_s": 300.0,
                "load_ms": 300.0,
                "peak_memory_bytes": 400_000_000,
            },
            "latency_ms": {"torch_fp32": {"p50": 20.0, "p95": 30.0}, "onnx_int8": {"p50": 5.0, "p95": 7.0}},
        },
        "students": {"good": student, "bad": student | {"verdict": "FAIL"}},
        "selected": "good",
        "gate": {
            "thresholds": {"accuracy": 0.97},
            "confidence": 0.95,
            "resamples": 1000,
            "seed": 0,
            "test_rows": 40,
        },
        "machine": {"cpu": "Testium 4", "cores": 2, "threads": 2},
    }
