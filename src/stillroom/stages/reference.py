"""reference: the teacher on the test rows, in PyTorch fp32 and as an int8 package, as students are measured; and its
answers to cases that have none of their own."""

from collections.abc import Sequence

import numpy as np

from stillroom import compute, layout
from stillroom.batching import Floats, load_tokeniser, tokenise
from stillroom.data.cases import FILE, read_cases
from stillroom.data.splits import Rows, read_snapshot, read_split
from stillroom.errors import InputError
from stillroom.export.build import Model, build_package
from stillroom.export.measure import TORCH_TEACHER, cold_start, machine, throughput
from stillroom.export.predictions import write_predictions
from stillroom.export.runtime import Package
from stillroom.files import atomic_folder, sha256_file, write_json
from stillroom.gate.metrics import agreement, classification_metrics, per_class
from stillroom.params import Params
from stillroom.problem import choices, probabilities
from stillroom.quantise_params import QuantiseParams
from stillroom.teacher.inference import predict
from stillroom.teacher.model import TOKENISER, WEIGHTS, LogitsOnly, load_teacher

_BUDGET = 8192
_WARM_TEXTS = 64
"""A teacher keeps nothing of a text; they bring memory and threads into play."""
_ALWAYS_INT8 = QuantiseParams(rungs=("dynamic_int8", "fp32"), allowed_drop=1.0)


def run(params: Params) -> dict[str, float]:
    """Publish the teacher's test predictions, its figures and its int8 package."""
    compute.prepare(params.compute)
    snapshot = read_snapshot(layout.SPLIT)
    test, validation = (read_split(layout.SPLIT, name) for name in ("test", "validation"))
    warm = validation.text[:_WARM_TEXTS]
    teacher, description = load_teacher(layout.TEACHER)
    tokeniser = load_tokeniser(layout.TEACHER / TOKENISER, description.max_length)

    def probabilities_of(texts: Sequence[str]) -> Floats:
        tokens = tokenise(tokeniser, texts, description.max_length)
        logits = predict(teacher, tokens, description.pad, _BUDGET)
        return probabilities(logits, snapshot.problem_type, description.temperature)

    rows_per_s, found = throughput(probabilities_of, test.text, warm)
    metrics = classification_metrics(test.label, found)
    cases = read_cases(layout.INGESTED / FILE)
    weights = layout.TEACHER / WEIGHTS
    model = Model(
        name=f"{description.name}-int8",
        family="teacher",
        module=LogitsOnly(teacher),
        tokeniser=layout.TEACHER / TOKENISER,
        problem_type=description.problem_type,
        labels=description.labels,
        max_length=description.max_length,
        params=description.params,
        accuracy=description.metrics["validation"]["accuracy"],
    )
    with atomic_folder(layout.REFERENCE) as folder:
        write_predictions(folder / "predictions.parquet", test, {"teacher": found})
        if len(cases) and cases.label is None:
            answers = probabilities_of(cases.text)
            rows = Rows(np.arange(len(cases)), cases.text, choices(answers, snapshot.problem_type))
            write_predictions(folder / FILE, rows, {"teacher": answers})
        int8 = folder / "onnx_int8"
        int8.mkdir()
        lineage = {"data": snapshot.sha256, "teacher": sha256_file(weights)}
        manifest = build_package(int8, model, validation, _ALWAYS_INT8, lineage)
        if manifest["quantisation"] != "dynamic_int8":
            raise InputError(
                f"teacher.source: {description.name} has no int8 form to measure students against, since its "
                f"dynamic_int8 fails: {manifest['rungs'][0]['reason']}; take another teacher"
            )
        int8_rows_per_s, quantised = throughput(Package.load(int8).predict, test.text, warm)
        reference = {
            "name": description.name,
            "params": description.params,
            "size_bytes": weights.stat().st_size + (layout.TEACHER / TOKENISER).stat().st_size,
            "metrics": metrics,
            "per_class": per_class(test.label, found, snapshot.labels),
            "throughput_rows_per_s": rows_per_s,
            **cold_start(layout.TEACHER, test.text, TORCH_TEACHER),
            "onnx_int8": {
                "size_bytes": sum(path.stat().st_size for path in int8.iterdir()),
                "metrics": classification_metrics(test.label, quantised),
                "per_class": per_class(test.label, quantised, snapshot.labels),
                "agreement": agreement(quantised, found, snapshot.problem_type),
                "throughput_rows_per_s": int8_rows_per_s,
                **cold_start(int8, test.text),
            },
            "machine": machine(),
        }
        write_json(folder / "reference.json", reference)
    return dict(metrics)
