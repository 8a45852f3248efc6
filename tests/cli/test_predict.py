"""`stillroom predict`: labels on stdout or in a file, and abstention."""

import csv
from pathlib import Path

import pytest

from stillroom.export.build import build_package
from stillroom.export.runtime import Package
from stillroom.quantise_params import QuantiseParams
from tests.cli.test_main import Call
from tests.export.models import VALIDATION, static_model

TEXTS = VALIDATION.text[:20]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a static student."""
    folder = tmp_path_factory.mktemp("predict") / "package"
    folder.mkdir()
    build_package(folder, static_model(folder.parent), VALIDATION, QuantiseParams(rungs=("fp32",)), {})
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in this process."""
    return Call(monkeypatch, capsys)


@pytest.fixture
def answers(package: Path) -> list[tuple[str, str, float]]:
    """What the package says of the texts."""
    return list(Package.load(package).stream(iter(TEXTS)))


def test_texts_are_labelled_and_doubtful_ones_left_open(
    call: Call, package: Path, answers: list[tuple[str, str, float]]
) -> None:
    code, out, lines = call("predict", "--package", str(package), *TEXTS)
    assert (code, lines) == (0, [])
    assert out.splitlines() == [f"{label}\t{probability:.4f}\t{text}" for text, label, probability in answers]
    limit = sorted(probability for _, _, probability in answers)[10]
    code, out, lines = call("predict", "--package", str(package), "--abstain-below", repr(limit), *TEXTS)
    assert (code, lines) == (0, [])
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        label if probability >= limit else "" for _, label, probability in answers
    ]


def test_the_column_of_texts_is_named(
    call: Call, package: Path, answers: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("message\n" + "".join(f"{text}\n" for text in TEXTS))
    code, out, lines = call("predict", "--package", str(package), "--input", str(source), "--column", "message")
    assert (code, lines) == (0, [])
    assert [tuple(row) for row in csv.reader(out.splitlines())] == [
        ("message", "label", "probability"),
        *((text, label, f"{probability:.6f}") for text, label, probability in answers),
    ]
    code, out, (line,) = call("predict", "--package", str(package), "--input", str(source))
    assert (code, out) == (2, "")
    assert line.endswith("has no column 'text'; it has message; name another with --column")


def test_a_file_in_which_every_row_abstained_is_written_and_told(
    call: Call, package: Path, answers: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    options = ("predict", "--package", str(package), "--input", str(source), "--output", str(target))
    code, out, (line,) = call(*options, "--abstain-below", "1")
    assert (code, out) == (0, "")
    assert line.startswith("stillroom: predict: --abstain-below 1.0 withheld the label of every text (20)")
    assert f"{max(probability for _, _, probability in answers):.6f}" in line
    with target.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [""] * 20
    assert [row["probability"] for row in rows] == [f"{probability:.6f}" for _, _, probability in answers]
    code, _, (line,) = call(*options, "--abstain-below", "0.2")
    assert code == 0
    assert "0.2 withholds no label" in line


@pytest.mark.parametrize("threshold", ["0", "-1", "1.5", "nan"])
def test_a_threshold_that_is_no_probability(call: Call, tmp_path: Path, threshold: str) -> None:
    told = call.refused("predict", "--package", str(tmp_path / "none"), "--abstain-below", threshold, "a text")
    assert "predict: --abstain-below is" in told
    assert "above 0 and at most 1" in told
