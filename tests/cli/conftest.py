"""The command line, called in this process."""

import sys

import pytest

from stillroom.cli import main as cli


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Call":
    """Call the command line in this process."""
    return Call(monkeypatch, capsys)


class Call:
    """`call(arguments)`: exit code, stdout and the lines of stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, list[str]]:
        self._monkeypatch.setattr(sys, "argv", ["stillroom", *map(str, arguments)])
        code = cli.run_cli()
        told = self._capsys.readouterr()
        return code, told.out, told.err.splitlines()

    def refused(self, *arguments: object) -> str:
        """The one line of a refusal that printed nothing else."""
        code, out, lines = self(*arguments)
        assert (code, out, len(lines)) == (2, "", 1), lines
        assert lines[0].startswith("stillroom: ")
        return lines[0]
