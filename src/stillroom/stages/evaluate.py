"""evaluate: a student's package, its baseline and the teacher on the test rows → predictions, quality, speed."""

import logging
from typing import Any

import numpy as np

from stillroom import compute, layout
from stillroom.batching import encode, load_tokeniser
from stillroom.data.cases import FILE, Cases, read_cases
from stillroom.data.manifest import SnapshotManifest
from stillroom.data.splits import Rows, read_snapshot, read_split
from stillroom.export.measure import Predict, cold_start, latencies_ms, machine, throughput
from stillroom.export.predictions import read_probabilities, write_predictions
from stillroom.export.runtime import Package
from stillroom.files import atomic_folder, read_json, sha256_file, write_json
from stillroom.gate.metrics import agreement, classification_metrics, per_class
from stillroom.params import Params
from stillroom.problem import choices, named, probabilities
from stillroom.teacher.model import TOKENISER, load_teacher

_TIMED_TEXTS = 1000
_SLOW_TEXTS = 100
"""For both forms of the teacher; a student needs more to be timed well."""
_COMPARED = ("torch_fp32", "onnx_int8", "tokenise")

log = logging.getLogger("stillroom")


def run(params: Params, item: str) -> dict[str, float]:
    """Publish the figures of one student; quality and speed are those of the package, run by the runtime."""
    compute.prepare(params.compute)
    snapshot = read_snapshot(layout.SPLIT)
    test, met = read_split(layout.SPLIT, "test"), read_split(layout.SPLIT, "validation").text
    folder = layout.PACKAGES / item
    rows_per_s, student = throughput(Package.load(folder / "student").predict, test.text, met)
    baseline = Package.load(folder / "baseline").predict(test.text)
    teacher = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
    chosen = np.random.default_rng(params.seed).permutation(len(test.text))[:_TIMED_TEXTS]
    texts = [test.text[row] for row in chosen]
    package = Package.load(folder / "student")  # anew: it keeps words, and must have met those of no test row
    package.predict(met)
    predictors: dict[str, Predict] = {
        "student": lambda text: package.answer([text])[0],
        "torch_fp32": _teacher_predictor(),
        "onnx_int8": _int8_predictor(),
        "tokenise": lambda text: encode(package.tokeniser, [text], package.manifest["max_length"])[0].ids,
    }
    latency = latencies_ms(predictors, texts, {"torch_fp32": _SLOW_TEXTS, "onnx_int8": _SLOW_TEXTS}, met)
    reference = read_json(layout.REFERENCE / "reference.json")
    speedup = {f"vs_{name}": latency[name]["p50"] / latency["student"]["p50"] for name in _COMPARED}
    metrics = classification_metrics(test.label, student)
    cases = read_cases(layout.INGESTED / FILE)
    evaluation: dict[str, Any] = {
        "name": item,
        "family": package.manifest["family"],
        "params": package.manifest["params"],
        "size_bytes": sum(path.stat().st_size for path in (folder / "student").iterdir()),
        "quantisation": package.manifest["quantisation"],
        "package_digest": package.digest,
        "metrics": metrics,
        "per_class": per_class(test.label, student, snapshot.labels),
        "baseline_metrics": classification_metrics(test.label, baseline),
        "agreement": agreement(student, teacher, snapshot.problem_type),
        "latency_ms": latency["student"],
        "tokenise_latency_ms": latency["tokenise"],
        "throughput_rows_per_s": rows_per_s,
        **cold_start(folder / "student", test.text),
        "teacher": reference | {"latency_ms": {name: latency[name] for name in ("torch_fp32", "onnx_int8")}},
        "speedup": speedup,
        "machine": machine(),
    }
    with atomic_folder(layout.EVALUATIONS / item) as target:
        models = {"student": student, "baseline": baseline, "teacher": teacher}
        write_predictions(target / "predictions.parquet", test, models)
        if len(cases):
            answers = {"student": package.predict(cases.text)}
            write_predictions(target / FILE, _demanded(cases, snapshot), answers)
            evaluation["cases_sha256"] = sha256_file(layout.INGESTED / FILE)
        write_json(target / "evaluation.json", evaluation)
    log.info("evaluate %s: accuracy %.4f, %.3f ms", item, metrics["accuracy"], latency["student"]["p50"])
    return {**metrics, "latency_p50_ms": latency["student"]["p50"], **speedup}


def _demanded(cases: Cases, snapshot: SnapshotManifest) -> Rows:
    """Cases beside the answers that a package must give: those of their file, or the teacher's."""
    labelled = cases.rows(snapshot)
    if labelled is not None:
        return labelled
    rows = Rows(np.arange(len(cases)), cases.text, np.empty(0, np.int64))
    answers = read_probabilities(layout.REFERENCE / FILE, "teacher", rows)
    return Rows(rows.row, rows.text, choices(answers, snapshot.problem_type))


def _teacher_predictor() -> Predict:
    import torch

    model, description = load_teacher(layout.TEACHER)
    tokeniser = load_tokeniser(layout.TEACHER / TOKENISER, description.max_length)

    def predict(text: str) -> str:
        with torch.inference_mode():
            ids = torch.tensor([tokeniser.encode(text).ids])
            logits: Any = model(ids, torch.ones_like(ids))[0]
            problem = description.problem_type
            return named(choices(probabilities(logits.numpy(), problem), problem), description.labels, problem, ";")[0]

    return predict


def _int8_predictor() -> Predict:
    package = Package.load(layout.REFERENCE / "onnx_int8")
    return lambda text: package.answer([text])[0]
