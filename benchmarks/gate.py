"""How often the gate errs: simulated students of known retention, judged by the gate and by other rules.

`python benchmarks/gate.py` prints tables; with `--json` the last line is one JSON object. A student truly at
the threshold should pass in at most 1 − confidence of the runs (false_pass_rate), a truly good one the
oftener the more rows there are (true_pass_rate). Beside it: the permissive rule "pass unless the upper bound
is below the threshold", and the gate's own rule with a plain percentile bootstrap, which lacks the row
against the claim. The same for texts with several labels and for a slice, beside a gate that looks at all
rows alone; and the recall of classes, of which none may be failed where all are truly at the floor.
"""

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.gate.power import AnswerCounts, Teacher, lost_for
from stillroom.gate.power import student as student_of
from stillroom.gate.recall import class_recalls, p_value
from stillroom.gate.statistics import Cells, cells, retention
from stillroom.gate_params import MetricName

CLASSES = 4
TEACHER_ACCURACY = 0.95
THRESHOLD = 0.97
GOOD = 0.985
CONFIDENCE = 0.95
RESAMPLES = 1000
ROWS = (100, 300, 1000, 3000)
WON = {"losses only": 0.0, "losses and wins": 0.3}
METRICS: tuple[MetricName, ...] = ("accuracy", "macro_f1")
SETS = {
    (0, 0, 0, 0): 0.3,
    (1, 0, 0, 0): 0.2,
    (0, 1, 0, 0): 0.2,
    (0, 0, 1, 0): 0.1,
    (1, 1, 0, 0): 0.1,
    (0, 1, 1, 1): 0.1,
}
"""Share of the rows that have each set of four labels."""
SLICE_OF = 10_000
"""Test rows; what is not in the slice is answered as the teacher does."""
FLOOR, SIGNIFICANCE, FALLEN, EACH = 0.9, 0.05, (0.8, 0.7, 0.5), 40
"""Recall: the floor, the chance of a class failed by chance, what one class truly keeps, and test rows of a class."""
MANY = (4, 40)
"""Numbers of classes."""

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=120, help="simulated students of each kind (default 120)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    given = parser.parse_args()
    rates = [measure(metric, kind, rows, given.runs, given.seed) for metric in METRICS for kind in WON for rows in ROWS]
    several = [measure_sets(metric, rows, given.runs, given.seed) for metric in METRICS for rows in ROWS]
    slices = [measure_slice(rows, given.runs, given.seed) for rows in ROWS]
    recalls = [measure_recall(classes, given.runs, given.seed) for classes in MANY]
    _print_table(rates)
    _print_rates("several labels a text: at the threshold (false PASS) and good (true PASS)", several)
    _print_rates(
        f"a slice, so many rows of {SLICE_OF:,}: at the threshold in it (false PASS) and good (true PASS)", slices
    )
    _print_rates(f"recall of classes of {EACH} rows at the floor {FLOOR}: any failed; and one fallen: found", recalls)
    if given.json:
        criteria = {"several_labels": several, "slices": slices, "class_recall": recalls}
        print(json.dumps(figures(rates, given.runs, given.seed) | criteria))


def measure(metric: MetricName, kind: str, rows: int, runs: int, seed: int) -> dict[str, Any]:
    """Share of runs that pass under each rule, of students at the threshold and of good ones."""
    rng = np.random.default_rng([seed, rows, METRICS.index(metric), list(WON).index(kind)])
    found: dict[str, Any] = {"metric": metric, "kind": kind, "rows": rows}
    for name, truth in (("false", THRESHOLD), ("true", GOOD)):
        passed = {"gate": 0, "permissive": 0, "percentile": 0}
        for run in range(runs):
            sample = student(np.arange(rows) % CLASSES, truth, WON[kind], rng)
            judged = retention(sample, metric, CONFIDENCE, RESAMPLES, run)
            passed["gate"] += judged.lower >= THRESHOLD
            passed["permissive"] += judged.upper >= THRESHOLD
            if metric == "accuracy":
                passed["percentile"] += plain_percentile(sample, rng) >= THRESHOLD
        found |= {f"{name}_pass_{rule}": count / runs for rule, count in passed.items()}
    return found


def measure_sets(metric: MetricName, rows: int, runs: int, seed: int) -> dict[str, Any]:
    """The same of texts with several labels, accuracy being that of whole sets; losses and wins."""
    counts = np.rint(np.array(list(SETS.values())) * rows).astype(np.int64)
    test, teacher = AnswerCounts(np.array(list(SETS)), counts, several=True), Teacher(TEACHER_ACCURACY)
    rng = np.random.default_rng([seed, rows, METRICS.index(metric), 2])
    found: dict[str, Any] = {"metric": metric, "rows": rows}
    for name, truth in (("false", THRESHOLD), ("true", GOOD)):
        lost = lost_for(test, metric, truth, teacher)
        passed = {"gate": 0, "permissive": 0}
        for run in range(runs):
            sample = cells(*student_of(test, teacher.accuracy, lost, teacher.wins, rng))
            judged = retention(sample, metric, CONFIDENCE, RESAMPLES, run)
            passed["gate"] += judged.lower >= THRESHOLD
            passed["permissive"] += judged.upper >= THRESHOLD
        found |= {f"{name}_pass_{rule}": count / runs for rule, count in passed.items()}
    return found


def measure_slice(rows: int, runs: int, seed: int) -> dict[str, Any]:
    """The same of a slice, beside a gate that has none and judges all test rows."""
    rng = np.random.default_rng([seed, rows, 3])
    found: dict[str, Any] = {"rows": rows}
    labels = np.arange(SLICE_OF) % CLASSES
    for name, truth in (("false", THRESHOLD), ("true", GOOD)):
        passed = {"gate": 0, "permissive": 0, "without": 0}
        for run in range(runs):
            columns = answers(labels, np.where(np.arange(SLICE_OF) < rows, truth, 1.0), 0.0, rng)
            judged = retention(cells(*(column[:rows] for column in columns)), "accuracy", CONFIDENCE, RESAMPLES, run)
            whole = retention(cells(*columns), "accuracy", CONFIDENCE, RESAMPLES, run).lower >= THRESHOLD
            passed["gate"] += whole and judged.lower >= THRESHOLD
            passed["permissive"] += whole and judged.upper >= THRESHOLD
            passed["without"] += whole
        found |= {f"{name}_pass_{rule}": count / runs for rule, count in passed.items()}
    return found


def measure_recall(classes: int, runs: int, seed: int) -> dict[str, Any]:
    """Share of runs in which a class fails though all are at the floor (any_failed), and in which the one class fails
    that fell (found), by the gate's corrected test, the same test uncorrected, and the bare ratio."""
    rng = np.random.default_rng([seed, classes, 4])
    labels = np.arange(classes * EACH) % classes
    found: dict[str, Any] = {"classes": classes}
    for name, fallen in (("any_failed", FLOOR), *((f"found_at_{kept:g}", kept) for kept in FALLEN)):
        kept = np.where(labels == 0, fallen, FLOOR if name == "any_failed" else 1.0)
        failed = {"gate": 0, "uncorrected": 0, "ratio": 0}
        for _ in range(runs):
            columns = answers(labels, kept, WON["losses and wins"], rng)
            judged = class_recalls(cells(*columns), FLOOR, SIGNIFICANCE)
            asked = range(classes) if name == "any_failed" else (0,)
            failed["gate"] += any(judged[c].p_value <= SIGNIFICANCE for c in asked)
            failed["uncorrected"] += any(alone(columns, c) <= SIGNIFICANCE for c in asked)
            failed["ratio"] += any(judged[c].student < FLOOR * judged[c].teacher for c in asked)
        found |= {f"{name}_{rule}": count / runs for rule, count in failed.items()}
    return found


def alone(columns: Columns, chosen: int) -> float:
    """p-value of one class by itself."""
    of = columns[0] == chosen
    teacher, student_ = (column[of] == chosen for column in columns[1:])
    counts = ((teacher & student_).sum(), (teacher & ~student_).sum(), (~teacher & student_).sum())
    return p_value(*map(int, counts), FLOOR)


def student(labels: NDArray[np.int64], truth: float, won: float, rng: np.random.Generator) -> Cells:
    """Test rows of a student whose retention is `truth` in the long run."""
    return cells(*answers(labels, np.full(len(labels), truth), won, rng))


def answers(labels: NDArray[np.int64], truth: NDArray[np.float64], won: float, rng: np.random.Generator) -> Columns:
    """Labels, a teacher's answers and those of a student that keeps of a row's kind what `truth` has at it.

    won: chance that it is right where the teacher is wrong. Mistakes fall evenly on the other classes, so
    that accuracy and macro-F1 have the same true retention.
    """
    rows, classes = len(labels), int(labels.max()) + 1
    lost = 1 - truth + won * (1 - TEACHER_ACCURACY) / TEACHER_ACCURACY
    wrong = (labels + rng.integers(1, classes, rows)) % classes
    right = rng.random(rows) < TEACHER_ACCURACY
    kept = rng.random(rows)
    hit = np.where(right, kept >= lost, kept < won)
    return labels, np.where(right, labels, wrong), np.where(hit, labels, wrong)


def plain_percentile(sample: Cells, rng: np.random.Generator) -> float:
    """Lower bound of the retention of accuracy by a percentile bootstrap as textbooks have it."""
    drawn = rng.multinomial(sample.rows, sample.count / sample.rows, size=RESAMPLES)
    student_hits, teacher_hits = (drawn @ (chosen == sample.label) for chosen in (sample.student, sample.teacher))
    ratios: NDArray[np.float64] = student_hits / teacher_hits
    return float(np.quantile(ratios, 1 - CONFIDENCE))


def figures(rates: list[dict[str, Any]], runs: int, seed: int) -> dict[str, Any]:
    """The named figures: rates over all cases, by rows, and the worst case."""
    by_rows = {rows: [rate for rate in rates if rate["rows"] == rows] for rows in ROWS}

    def rule(name: str) -> dict[str, Any]:
        return {
            "false_pass_rate": _mean(rates, f"false_pass_{name}"),
            "false_pass_rate_worst": max(rate[f"false_pass_{name}"] for rate in rates),
            "false_pass_rate_by_rows": {str(rows): _mean(some, f"false_pass_{name}") for rows, some in by_rows.items()},
            "true_pass_rate": {str(rows): _mean(some, f"true_pass_{name}") for rows, some in by_rows.items()},
        }

    accuracy_only = [rate for rate in rates if rate["metric"] == "accuracy"]
    return {
        **rule("gate"),
        "permissive": rule("permissive"),
        "percentile_false_pass_rate": _mean(accuracy_only, "false_pass_percentile"),
        "percentile_false_pass_rate_worst": max(rate["false_pass_percentile"] for rate in accuracy_only),
        "threshold": THRESHOLD,
        "good": GOOD,
        "teacher_accuracy": TEACHER_ACCURACY,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "runs_per_case": runs,
        "cases": len(rates),
        "monte_carlo_error_per_case": round((0.05 * 0.95 / runs) ** 0.5, 4),
        "seed": seed,
    }


def _mean(rates: list[dict[str, Any]], key: str) -> float:
    return round(float(np.mean([rate[key] for rate in rates])), 4)


def _print_table(rates: list[dict[str, Any]]) -> None:
    rules = ("gate", "permissive", "percentile")
    print(f"threshold {THRESHOLD}, teacher's accuracy {TEACHER_ACCURACY}, confidence {CONFIDENCE}")
    print(f"share that passes: students of retention {THRESHOLD} (false PASS) and {GOOD} (true PASS)")
    print(f"{'':33}" + "".join(f"{rule:>14}" for rule in rules))
    print(f"{'metric':10}{'student':17}{'rows':>6}" + f"{'false':>7}{'true':>7}" * len(rules))
    for rate in rates:
        known = rules if rate["metric"] == "accuracy" else rules[:2]
        told = "".join(f"{rate[f'{kind}_pass_{rule}']:>7.3f}" for rule in known for kind in ("false", "true"))
        print(f"{rate['metric']:10}{rate['kind']:17}{rate['rows']:>6}{told}")


def _print_rates(title: str, rates: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    for rate in rates:
        told = (f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in rate.items())
        print("  ".join(told))


if __name__ == "__main__":
    main()
