"""How often the gate errs: simulated students of known retention, judged by the gate and by two other rules.

`python benchmarks/gate.py` prints a table; with `--json` the last line is one JSON object. A student truly at
the threshold should pass in at most 1 − confidence of the runs (false_pass_rate), a truly good one the
oftener the more rows there are (true_pass_rate). Beside it: the permissive rule "pass unless the upper bound
is below the threshold", and the gate's own rule with a plain percentile bootstrap, which lacks the row
against the claim.
"""

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.gate.statistics import Cells, MetricName, cells, retention

CLASSES = 4
TEACHER_ACCURACY = 0.95
THRESHOLD = 0.97
GOOD = 0.985
CONFIDENCE = 0.95
RESAMPLES = 1000
ROWS = (100, 300, 1000, 3000)
WON = {"losses only": 0.0, "losses and wins": 0.3}
METRICS: tuple[MetricName, ...] = ("accuracy", "macro_f1")


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=120, help="simulated students of each kind (default 120)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    given = parser.parse_args()
    rates = [measure(metric, kind, rows, given.runs, given.seed) for metric in METRICS for kind in WON for rows in ROWS]
    _print_table(rates)
    if given.json:
        print(json.dumps(figures(rates, given.runs, given.seed)))


def measure(metric: MetricName, kind: str, rows: int, runs: int, seed: int) -> dict[str, Any]:
    """Share of runs that pass under each rule, of students at the threshold and of good ones."""
    rng = np.random.default_rng([seed, rows, METRICS.index(metric), list(WON).index(kind)])
    found: dict[str, Any] = {"metric": metric, "kind": kind, "rows": rows}
    for name, truth in (("false", THRESHOLD), ("true", GOOD)):
        passed = {"gate": 0, "permissive": 0, "percentile": 0}
        for run in range(runs):
            sample = student(rows, truth, WON[kind], rng)
            judged = retention(sample, metric, CONFIDENCE, RESAMPLES, run)
            passed["gate"] += judged.lower >= THRESHOLD
            passed["permissive"] += judged.upper >= THRESHOLD
            if metric == "accuracy":
                passed["percentile"] += plain_percentile(sample, rng) >= THRESHOLD
        found |= {f"{name}_pass_{rule}": count / runs for rule, count in passed.items()}
    return found


def student(rows: int, truth: float, won: float, rng: np.random.Generator) -> Cells:
    """Test rows of a student whose retention is `truth` in the long run.

    won: chance that it is right where the teacher is wrong. Mistakes fall evenly on the other classes, so
    that accuracy and macro-F1 have the same true retention.
    """
    lost = 1 - truth + won * (1 - TEACHER_ACCURACY) / TEACHER_ACCURACY
    labels = np.arange(rows) % CLASSES
    wrong = (labels + rng.integers(1, CLASSES, rows)) % CLASSES
    right = rng.random(rows) < TEACHER_ACCURACY
    kept = rng.random(rows)
    hit = np.where(right, kept >= lost, kept < won)
    return cells(labels, np.where(right, labels, wrong), np.where(hit, labels, wrong))


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


if __name__ == "__main__":
    main()
