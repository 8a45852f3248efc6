from pathlib import Path

import pytest

from stillroom import layout


def test_the_state_folder_is_named_by_the_environment_and_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(layout.STATE_VARIABLE, raising=False)
    assert layout.state() == tmp_path / ".stillroom"
    monkeypatch.setenv(layout.STATE_VARIABLE, "elsewhere")
    assert layout.state() == tmp_path / "elsewhere"


def test_no_out_of_a_stage_lies_in_another() -> None:
    outs = [value for name, value in vars(layout).items() if name.isupper() and isinstance(value, Path)]
    assert len(outs) == len(set(outs)) > 10
    for one in outs:
        assert not one.is_absolute()
        assert not any(one in other.parents for other in outs), one
