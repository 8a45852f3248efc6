"""An old Python, or one without the pipeline, is refused before anything is imported or installed."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stillroom
from stillroom import entry

ROOT = Path(__file__).parents[1]


def started(capsys: pytest.CaptureFixture[str]) -> tuple[object, list[str]]:
    """Exit code of the console script, and its lines on stderr."""
    with pytest.raises(SystemExit) as stop:
        entry.main()
    return stop.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("version", [(3, 5, 2), (3, 10, 14), (2, 7, 18)])
def test_an_old_python_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: tuple[int, ...]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", version)
        patch.delitem(sys.modules, "stillroom.cli.main", raising=False)
        code, lines = started(capsys)
        assert "stillroom.cli.main" not in sys.modules
    told = f"Python {version[0]}.{version[1]}"
    assert (code, lines) == (2, [f"stillroom: {told} is too old; Stillroom needs 3.11 or newer"])


@pytest.mark.parametrize("module", [entry, stillroom])
def test_what_refuses_an_old_python_can_be_read_by_it(module: object) -> None:
    text = Path(str(module.__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert ast.parse(text, feature_version=(3, 4)).body


def test_the_base_install_is_told_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "stillroom.cli.main", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    code, lines = started(capsys)
    assert (code, len(lines)) == (2, 1)
    assert "make install" in lines[0]


@pytest.mark.parametrize(("version", "accepted"), [("3.9.2", False), ("3.10.14", False), ("3.11.0", True)])
def test_make_install_with_another_python(tmp_path: Path, version: str, accepted: bool) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    python, called = tmp_path / "python", tmp_path / "called"
    numbers = version.replace(".", ", ")
    python.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --version ]; then echo "Python {version}"; exit 0; fi\n'
        f'if [ "$1" = -c ]; then exec "{sys.executable}" -c "import sys; sys.version_info = ({numbers}); $2"; fi\n'
        f'echo "$@" > "{called}"; exit 9\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert not (tmp_path / ".venv").exists()
    told = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    if accepted:
        assert called.read_text() == "-m venv .venv\n"
        assert told == []
    else:
        assert not called.exists()
        assert told == [f"Python {version} found; Stillroom needs Python 3.11 or newer: make PYTHON=python3.11"]
