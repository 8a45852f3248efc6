"""Speed and memory as a user meets them: text in, label out, in one process and run, so that ratios hold."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stillroom.cores import available_cores

_ROUNDS = 5
_WARM_UP = 3
_COLD_TEXTS = 256
"""They fill a batch; on the demo's teacher 1,000 took 4 times as long for a peak that was 4 to 7 % higher."""
PACKAGE = """
from stillroom.export.runtime import Package
predict = Package.load(sys.argv[1]).predict
"""
TORCH_TEACHER = """
from pathlib import Path
from stillroom.batching import load_tokeniser, tokenise
from stillroom.teacher import inference
from stillroom.teacher.model import TOKENISER, load_teacher
teacher, description = load_teacher(Path(sys.argv[1]))
tokeniser = load_tokeniser(Path(sys.argv[1]) / TOKENISER, description.max_length)
def predict(texts):
    tokens = tokenise(tokeniser, texts, description.max_length)
    return inference.predict(teacher, tokens, description.pad, budget=8192)
"""
_COLD_START = """
import json, sys, time
began = time.perf_counter()
exec(sys.argv[2])
predict(["warm"])
load_ms = 1000 * (time.perf_counter() - began)
predict(json.load(sys.stdin))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"load_ms": load_ms, "peak_memory_bytes": 1024 * int(status["VmHWM"].split()[0])}))
"""

Predict = Callable[[str], Any]
Input = TypeVar("Input")
Answers = TypeVar("Answers")


def latencies_ms(
    predictors: Mapping[str, Callable[[Input], Any]],
    texts: Sequence[Input],
    counts: Mapping[str, int],
    warm: Sequence[Input] = (),
) -> dict[str, dict[str, float]]:
    """p50 and p95 of one text, in the form that the predictors take, per predictor.

    Predictors take turns in rounds, each over its share of the texts, so that a machine whose speed drifts slows all
    of them alike. No text is timed twice: what a predictor keeps of it would be timed instead. counts: how many of the
    texts, from the first on, a predictor is timed on; by default all (a fast one needs many to be timed well). warm:
    other texts, the first of which begin each turn untimed; by default the turn's own do, for predictors that keep
    nothing.
    """
    taken: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(_ROUNDS):
        for name, predict in predictors.items():
            share = texts[: counts.get(name, len(texts))][turn::_ROUNDS]
            for text in (warm or share)[:_WARM_UP]:
                predict(text)
            for text in share:
                began = time.perf_counter_ns()
                predict(text)
                taken[name].append((time.perf_counter_ns() - began) / 1e6)
    return {
        name: {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95))}
        for name, values in taken.items()
    }


def throughput(
    predict: Callable[[Sequence[str]], Answers], texts: Sequence[str], warm: Sequence[str]
) -> tuple[float, Answers]:
    """Rows a second in batches, tokenising included, and what was predicted.

    One pass, over texts that the predictor has not met, after another over the texts to warm it with: a second pass
    would be over words that a package has kept from the first.
    """
    predict(warm)
    began = time.perf_counter()
    answers = predict(texts)
    return len(texts) / (time.perf_counter() - began), answers


def cold_start(folder: Path, texts: Sequence[str], load: str = PACKAGE) -> dict[str, float]:
    """Load time and peak memory of a model in a process of its own, predicting the first texts in one call.

    load: the source that gives `predict` for the folder, PACKAGE or TORCH_TEACHER. The peak is the kernel's VmHWM,
    which starts anew at exec; getrusage would begin with this process's own size.
    """
    done = subprocess.run(
        [sys.executable, "-c", _COLD_START, str(folder), load],
        input=json.dumps(list(texts[:_COLD_TEXTS])),
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import os
    import platform

    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": available_cores()}
