"""A finished workspace in miniature, with real packages, and an empty MLflow store to copy."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stillroom import layout, ui
from stillroom.data.examples import Examples, Splits
from stillroom.data.manifest import DataSource, FileSource
from stillroom.data.splits import read_split, write_splits
from stillroom.export.package import relist, write_package
from stillroom.export.predictions import write_predictions
from stillroom.export.runtime import Package
from stillroom.files import sha256_file, write_json
from stillroom.params import Params, validate
from stillroom.pipeline.outcome import StageOutcome
from stillroom.registry import runs, tracking
from stillroom.registry.register import read_release, register
from stillroom.report.page import CHANGE_PLACE
from stillroom.stages.receipt import Receipt

LABELS = ("bad", "good")
WORDS = ("[UNK]", "awful", "poor", "great", "fine")
ROWS = {"train": 80, "validation": 10, "test": 10}


# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates; neither is ours.
OTHERS_WARNINGS = ("ignore:The ``noload`` loader strategy is deprecated",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the warnings of others pass in this folder's tests; all else stays an error."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for warning in OTHERS_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


def write_graph(path: Path, bias: float) -> None:
    """An ONNX graph that adds up a score per known word; bias makes one package differ from another."""
    from onnx import TensorProto, helper, numpy_helper, save

    scores = np.array([[0, 0], [3, 0], [2, 0], [0, 3], [0, 2]], dtype=np.float32)
    scores[0, 1] += bias
    nodes = [
        helper.make_node("Gather", ["scores", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "words"], ["logits"], keepdims=0),
    ]
    ints = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in ("input_ids", "attention_mask")]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    constants = {"scores": scores, "last": np.array([2]), "words": np.array([1])}
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", ints, [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(path))


def write_tokeniser(path: Path) -> None:
    """A tokeniser of five words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokeniser = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    tokeniser.save(str(path))


def write_release(
    folder: Path, scratch: Path, *, bias: float, verdict: str, lower: float, approval: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A release/NAME folder: package, gate report and card; returns its manifest."""
    scratch.mkdir(parents=True, exist_ok=True)
    write_graph(scratch / "model.onnx", bias)
    write_tokeniser(scratch / "tokenizer.json")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    manifest = write_package(
        folder,
        model=scratch / "model.onnx",
        tokeniser=scratch / "tokenizer.json",
        name=folder.name,
        family="static",
        problem_type="single_label",
        labels=LABELS,
        max_length=16,
        temperature=1.0,
        quantisation="dynamic_int8",
        params=10,
        threads=1,
        lineage={
            "data": "d" * 64,
            "teacher": "t" * 64,
            "cache": "c" * 64,
            "code": "e" * 64,
            "lock": "f" * 64,
        },
        rungs=[{"rung": "dynamic_int8", "accuracy": 0.9, "drop": 0.0, "size_bytes": 900, "latency_ms": 0.1}],
    )
    report = {
        "verdict": verdict,
        "reasons": ["as the test wants it"],
        "package_digest": manifest["digest"],
        "retention": {"accuracy": {"point": 0.99, "lower": lower, "upper": 1.0}},
    }
    write_json(folder / "gate.json", report | ({"approval": approval} if approval else {}))
    (folder / "MODEL_CARD.md").write_text(f"# {folder.name}\n", encoding="utf-8")
    return relist(folder, manifest)


def replace_by_another(folder: Path, other: Path) -> None:
    """Put another package in a package's place."""
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def flip_a_byte(folder: Path, other: Path) -> None:
    """Damage a package's graph."""
    path = folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@dataclass
class Workspace:
    """A workspace whose pipeline has ended, as the record step finds it."""

    root: Path
    params: Params
    verdicts: dict[str, str] = field(default_factory=dict)

    def release(self, student: str, *, verdict: str, bias: float, lower: float = 0.98, approval: Any = None) -> None:
        """Write everything that the pipeline leaves about one student."""
        manifest = write_release(
            self.root / layout.RELEASE / student,
            self.root.parent / f"scratch-{student}",
            bias=bias,
            verdict=verdict,
            lower=lower,
            approval=approval,
        )
        evaluation = {
            "name": student,
            "family": "static",
            "params": 10,
            "size_bytes": 900,
            "quantisation": "dynamic_int8",
            "package_digest": manifest["digest"],
            "metrics": {"accuracy": 0.95, "macro_f1": 0.94, "ece": 0.02},
            "per_class": {"bad": {"f1": 0.9}, "good/ü?": {"f1": 0.91}},
            "baseline_metrics": {"accuracy": 0.9},
            "agreement": 0.97,
            "latency_ms": {"p50": 0.1, "p95": 0.2},
            "teacher": {"metrics": {"accuracy": 0.96}},
            "speedup": {"vs_torch_fp32": 100.0, "vs_onnx_int8": 20.0},
        }
        folder = self.root / layout.EVALUATIONS / student
        write_json(folder / "evaluation.json", evaluation)
        test = read_split(self.root / layout.SPLIT, "test")
        answered = Package.load(self.root / layout.RELEASE / student).predict(test.text)
        write_predictions(folder / "predictions.parquet", test, {"student": answered})
        write_json(self.root / layout.PACKAGES / student / "student/stillroom.json", manifest)
        curve = [{"epoch": n, "train_loss": 1.0 / n, "validation_accuracy": 0.9 + n / 100} for n in (1, 2, 3)]
        write_json(
            self.root / layout.STUDENTS / student / "student.json",
            {
                "name": student,
                "family": "static",
                "params": 10,
                "history": curve,
                "baseline_history": curve[:2],
            },
        )
        self.verdicts[student] = verdict
        self._summarise()

    def _summarise(self) -> None:
        passed = [name for name, verdict in self.verdicts.items() if verdict == "PASS"]
        students = {
            name: {
                "family": "static",
                "params": 10,
                "size_bytes": 900,
                "metrics": {"accuracy": 0.95},
                "retention": {"accuracy": {"point": 0.99, "lower": 0.98, "upper": 1.0}},
                "latency_ms": {"p50": 0.1, "p95": 0.2},
                "verdict": verdict,
                "reasons": [],
            }
            for name, verdict in self.verdicts.items()
        }
        summary = {
            "task": "text-classification",
            "teacher": {"name": "toy", "params": 100, "metrics": {"accuracy": 0.96}},
            "students": students,
            "selected": passed[0] if passed else None,
        }
        write_json(self.root / layout.SUMMARY, summary)

    def outcomes(self, executed: bool = True) -> list[StageOutcome]:
        """The stages as the pipeline tells them; a fingerprint follows what the stage left."""
        addresses = ["split", "teach", "capture"]
        for student in self.verdicts:
            addresses += [f"distil@{student}", f"quantise@{student}", f"evaluate@{student}"]
        return [self._outcome(address, executed) for address in [*addresses, "select", "report"]]

    def _outcome(self, address: str, executed: bool) -> StageOutcome:
        item = address.partition("@")[2]
        gate = sha256_file(self.root / layout.RELEASE / item / "gate.json") if item else "x"
        receipt = Receipt(
            stage=address,
            state="finished",
            pid=1,
            started_at=1_700_000_000.0,
            ended_at=1_700_000_002.0,
            exit_code=0,
            cpu_s=1.5,
            peak_memory_bytes=1000,
            metrics={"entries": 5.0},
        )
        return StageOutcome(address, executed, f"{address}-{gate}", 2.0, receipt if executed else None)


def rows(count: int) -> Examples:
    """Rows of one word each: the packages know the first four, and say "good" of the fifth by their bias alone."""
    words = [(*WORDS[1:], "unheard")[number % 5] for number in range(count)]
    return Examples(list(range(count)), words, ["bad" if word in WORDS[1:3] else "good" for word in words])


def make_workspace(root: Path, raw: Mapping[str, Any] | None = None) -> Workspace:
    """A workspace with a split, a teacher and a report, and no student yet."""
    raw = raw or {
        "data": {"source": "rows.csv"},
        "teacher": {"source": "teacher"},
        "students": {"static": {"family": "static"}, "tiny": {"family": "static", "epochs": 2}},
        "registry": {"model": "toy", "experiment": "toy"},
    }
    params = validate(raw, "test")
    source = DataSource(train=FileSource(uri="rows.csv", sha256="b" * 64, file="rows.csv"))
    write_splits(Splits({name: rows(count) for name, count in ROWS.items()}), source, [], root / layout.SPLIT)
    history = [{"epoch": 1, "train_loss": 0.5, "validation_accuracy": 0.95, "seconds": 1.0}]
    teacher = {
        "name": "toy",
        "params": 100,
        "precision": "fp32",
        "metrics": {"validation": {"accuracy": 0.96}},
    }
    write_json(root / layout.TEACHER / "teacher.json", teacher | {"history": history})
    (root / layout.REPORT).mkdir(parents=True)
    (root / layout.REPORT / "report.md").write_text("# Report\n", encoding="utf-8")
    (root / layout.REPORT / layout.PAGE).write_text(f"<main>{CHANGE_PLACE}</main>", encoding="utf-8")
    (root / layout.PARAMS).write_text(json.dumps(raw), encoding="utf-8")
    return Workspace(root, params)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in them."""
    tracking.quieten()
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def state(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, with an empty MLflow store in it."""
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    monkeypatch.setenv(layout.STATE_VARIABLE, str(folder))
    monkeypatch.delenv(tracking.URI_VARIABLE, raising=False)
    return folder


@contextmanager
def cut_off(patch: pytest.MonkeyPatch, module: ModuleType, step: str) -> Iterator[None]:
    """What is done here must fail at a function of the module, which never happens."""

    def cut(*_: object) -> None:
        raise ConnectionError("the line went dead")

    with patch.context() as patched:
        patched.setattr(module, step, cut)
        with pytest.raises(ConnectionError):
            yield


@contextmanager
def mlflow_server(patch: pytest.MonkeyPatch) -> Iterator[ui.Running]:
    """A server with a password over the store in use, with its address and credentials in the environment."""
    patch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with ui.interfaces(mlflow_port=0) as running:
        assert running.addresses.credentials
        secret = json.loads(running.addresses.credentials.read_text())
        patch.setenv(tracking.URI_VARIABLE, running.addresses.mlflow_url)
        patch.setenv("MLFLOW_TRACKING_USERNAME", secret["user"])
        patch.setenv("MLFLOW_TRACKING_PASSWORD", secret["password"])
        yield running


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two students: static passes, tiny does not."""
    made = make_workspace(tmp_path / "workspace")
    made.release("static", verdict="PASS", bias=0.1)
    made.release("tiny", verdict="FAIL", bias=0.2, lower=0.8)
    return made


MakeRelease = Callable[..., Path]


@pytest.fixture
def make_release(tmp_path: Path) -> MakeRelease:
    """`make_release(name, bias=, verdict=, lower=, approval=)` writes a release folder and returns it."""

    def make(name: str, *, bias: float = 0.1, verdict: str = "PASS", lower: float = 0.98, approval: Any = None) -> Path:
        folder = tmp_path / "releases" / name
        write_release(folder, tmp_path / "scratch", bias=bias, verdict=verdict, lower=lower, approval=approval)
        return folder

    return make


@pytest.fixture
def tracker(state: Path) -> tracking.Tracker:
    """An open, empty store."""
    return tracking.connect()


@pytest.fixture
def run(tracker: tracking.Tracker) -> runs.Run:
    """A run of the experiment `toy`."""
    experiment = runs.experiment(tracker, "toy")
    return runs.find_or_create(tracker, experiment, {"kind": "test"}, name="test", start_ms=1, tags={})


@pytest.fixture
def registered(tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease) -> tracking.Tracker:
    """A registry with four versions of `toy`: 1, 2 and 4 passed, 3 failed."""
    for number, verdict in enumerate(("PASS", "PASS", "FAIL", "PASS"), start=1):
        folder = make_release(str(number), bias=number / 10, verdict=verdict)
        assert register(tracker, "toy", read_release(folder, "static"), run, (), {}) == number
    return tracker
