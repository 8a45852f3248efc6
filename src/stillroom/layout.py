"""Where things stand in a workspace: the one place that names its files and folders."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("requirements.lock")
SOURCE_DATA = Path("sources/data")
SOURCE_TEACHER = Path("sources/teacher.json")
INGESTED = Path("artifacts/ingested")
SPLIT = Path("artifacts/split")
GROWN = Path("artifacts/grown")
TEACHER = Path("artifacts/teacher")
CACHE = Path("artifacts/cache")
MEMBERS = Path("members")
"""Below TEACHER and CACHE: a folder for each teacher of an ensemble but the first, by its number."""
REFERENCE = Path("artifacts/reference")
STUDENTS = Path("artifacts/students")
PACKAGES = Path("artifacts/packages")
EVALUATIONS = Path("artifacts/evaluations")
SUMMARY = Path("reports/summary.json")
GATE_REPORTS = Path("reports/gate")
REPORT = Path("reports/report")
PAGE = "report.html"
"""Below REPORT."""
CHANGE = Path("reports/change.json")
CHANGE_PAGE = Path("reports/report.html")
"""The page with what is in CHANGE. Both are written when a run is recorded, since they tell of the registry, and are no
stage's outs."""
RELEASE = Path("release")

STATE_VARIABLE = "STILLROOM_STATE"


def state() -> Path:
    """The ignored folder for what is shared between runs: fetched sources, cache store, MLflow, checkpoints."""
    return Path(os.environ.get(STATE_VARIABLE, ".stillroom")).absolute()
