"""A CSV file in, a CSV file out: in order, whole or not at all, and refused in one line."""

import csv
import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InputError, TryAgain
from stillroom.export import table
from stillroom.export.runtime import Package
from stillroom.export.table import predict_file
from tests.conftest import SOURCE_ROOT

TEXTS = (
    "plain",
    "with, commas",
    'a "quoted" text',
    "two\nlines",
    "a return\rwithin",
    "windows\r\nlines",
    "",
    " spaces ",
)


@pytest.fixture(scope="module")
def loaded(built: Path) -> Package:
    """A real package of a static student."""
    return Package.load(built / "fp32")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of two good rows."""
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,one text\n2,another\n", encoding="utf-8")
    return path


def rows(told: str) -> list[dict[str, str]]:
    """CSV as anyone else would read it."""
    return list(csv.DictReader(io.StringIO(told, newline=""), strict=True))


def refused(loaded: Package, source: Path, target: Path | None) -> str:
    """The one line that refuses, once it is sure that nothing appeared beside what was there."""
    folder = source.parent
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        predict_file(loaded.stream, source, target)
    assert sorted(folder.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_text_comes_back_as_it_was_and_in_order(loaded: Package, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    texts = [f"{text}{n}" if n else text for n in range(700) for text in TEXTS]
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text", "id"], *([text, str(n)] for n, text in enumerate(texts))])
    predict_file(loaded.stream, source, target)
    told = rows(target.read_bytes().decode())
    assert [row["text"] for row in told] == texts
    expected = loaded.predict(texts)
    assert [row["label"] for row in told] == [loaded.labels[best] for best in expected.argmax(axis=1)]
    assert [float(row["probability"]) for row in told] == pytest.approx(expected.max(axis=1), abs=1e-4)


def test_output_goes_to_stdout_where_no_target_is_given(
    loaded: Package, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_file(loaded.stream, source, None)
    told = capsys.readouterr().out
    assert told.splitlines()[0] == "text,label,probability"
    assert [row["text"] for row in rows(told)] == ["one text", "another"]
    predict_file(loaded.stream, source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == told


def test_a_file_with_a_byte_order_mark_and_a_file_without_rows(loaded: Package, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    source.write_bytes("text,id\nhöher,1\n".encode("utf-8-sig"))
    predict_file(loaded.stream, source, target)
    assert [row["text"] for row in rows(target.read_text(encoding="utf-8"))] == ["höher"]
    source.write_text("text\n")
    predict_file(loaded.stream, source, target)
    assert target.read_text() == "text,label,probability\n"


def test_the_texts_may_be_in_another_column(loaded: Package, source: Path, tmp_path: Path) -> None:
    expected, found = tmp_path / "expected.csv", tmp_path / "found.csv"
    predict_file(loaded.stream, source, expected)
    source.write_text(source.read_text().replace("id,text", "text,words"))
    predict_file(loaded.stream, source, found, "words")
    assert found.read_text() == expected.read_text().replace("text,label", "words,label")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "has no column 'text'; it has none"),
        (b"words,id\na,1\n", "has no column 'text'; it has words, id; name another with --column"),
        (b'text,id\ngood,1\n"never closed,2\n', "after line 2: unexpected end of data"),
        (b'text,id\ngood,1\n"closed" too early,2\n', "after line 2: ',' expected after '\"'"),
        (b"id,text\n1,good\n2\n", "line 3 has no value for 'text'"),
        ("text\nhöher\n".encode("latin-1"), "not UTF-8"),
        ("text\nwide\n".encode("utf-16"), "not UTF-8"),
    ],
)
@pytest.mark.parametrize("where", ["file", "stdout"])
def test_a_source_that_is_no_table_of_texts(
    loaded: Package, source: Path, content: bytes, told: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_bytes(content)
    line = refused(loaded, source, source.with_name("out.csv") if where == "file" else None)
    assert line.startswith(f"{source}: ")
    assert told in line
    assert capsys.readouterr().out == ""


def test_a_source_that_cannot_be_opened(loaded: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.csv"
    (tmp_path / "folder").mkdir()
    assert "folder: cannot be read (Is a directory)" in refused(loaded, tmp_path / "folder", target)
    assert "none.csv: cannot be read (No such file" in refused(loaded, tmp_path / "none.csv", target)
    assert "cannot be read (File name too long)" in refused(loaded, tmp_path / ("n" * 300), target)

    def forbidden(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))  # root may read everything

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", forbidden)
        line = refused(loaded, tmp_path / "secret.csv", None)
    assert line.endswith("secret.csv: cannot be read (Permission denied)")


def test_a_target_that_cannot_be_written(loaded: Package, source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert "there is no folder" in refused(loaded, source, tmp_path / "nowhere" / "out.csv")
    assert "there is no folder" in refused(loaded, source, source / "out.csv")
    assert "folder: is no regular file" in refused(loaded, source, tmp_path / "folder")
    assert "pipe: is no regular file" in refused(loaded, source, tmp_path / "pipe")
    assert "File name too long" in refused(loaded, source, tmp_path / ("n" * 250))


@pytest.mark.parametrize("before", [None, "what was there"])
@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, TryAgain), (errno.EDQUOT, TryAgain), (errno.EROFS, InputError)]
)
def test_a_disk_that_fails_halfway_leaves_the_target_as_it_was(
    loaded: Package,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    number: int,
    error: type[Exception],
) -> None:
    target = source.with_name("out.csv")
    if before is not None:
        target.write_text(before)
    failing(monkeypatch, lambda: OSError(number, os.strerror(number)))
    with pytest.raises(error, match=f"out.csv: .*{os.strerror(number)}"):
        predict_file(loaded.stream, source, target)
    assert (target.read_text() if target.exists() else None) == before
    assert {path.name for path in source.parent.iterdir()} <= {"in.csv", "out.csv"}


def test_an_interrupt_halfway_leaves_nothing(loaded: Package, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_file(loaded.stream, source, source.with_name("out.csv"))
    assert [path.name for path in source.parent.iterdir()] == ["in.csv"]


def failing(monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]) -> None:
    """Let writing fail once the header and a row are out."""
    write = table._Lines.write
    written: list[str] = []

    def fails(lines: table._Lines, line: str) -> None:
        write(lines, line)
        written.append(line)
        if len(written) == 2:
            raise error()

    monkeypatch.setattr(table._Lines, "write", fails)


def test_a_source_refused_late_leaves_no_target(loaded: Package, source: Path) -> None:
    source.write_text("text,id\n" + "good,1\n" * 5000 + '"never closed,2\n')
    assert "after line 5001" in refused(loaded, source, source.with_name("out.csv"))


def test_a_target_may_be_the_source_or_a_link(loaded: Package, source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.csv"
    link.symlink_to(source)
    predict_file(loaded.stream, source, link)
    assert link.is_symlink()
    assert [row["text"] for row in rows(source.read_text())] == ["one text", "another"]
    assert source.read_text().startswith("text,label,probability\n")


PEAK = """
import sys
from pathlib import Path
from stillroom.export.runtime import Package
from stillroom.export.table import predict_file
package, (source, target) = Package.load(sys.argv[1]), (Path(path) for path in sys.argv[2:])

def held_kb():
    told = Path("/proc/self/status").read_text()
    return int(told.split("RssAnon:")[1].split()[0])

def watched(texts):
    for number, answer in enumerate(package.stream(texts)):
        if number % 500 == 0:
            peaks[-1] = max(peaks[-1], held_kb())
        yield answer

peaks = []
for count in (20_000, 200_000):
    with source.open("w") as lines:
        lines.write("text\\n")
        lines.writelines(f"my parcel n{number} is delayed again, why?\\n" for number in range(count))
    peaks.append(0)
    predict_file(watched, source, target)
    assert sum(1 for _ in target.open()) == count + 1
print(*peaks)
"""


def test_memory_does_not_grow_with_the_file(built: Path, tmp_path: Path) -> None:
    """Ten times the rows, each with a word of its own; the fewer, too, are more words than a package keeps."""
    told = subprocess.run(
        [sys.executable, "-c", PEAK, str(built / "fp32"), str(tmp_path / "in.csv"), str(tmp_path / "out.csv")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(SOURCE_ROOT), "PATH": os.environ["PATH"]},
    )
    few, many = (int(peak) for peak in told.stdout.split())
    assert few > 10_000, "in KiB"
    assert many < 1.1 * few
