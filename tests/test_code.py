import subprocess
import sys
from pathlib import Path

import pytest

from stillroom import code

DIGEST = "from stillroom.code import code_digest; print(code_digest())"


def digest_of(path: Path, imports: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{imports}\n{DIGEST}"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The few modules that the digest itself loads, in a folder of their own."""
    folder = tmp_path / "copy" / "stillroom"
    folder.mkdir(parents=True)
    for name in ("__init__", "code", "files", "errors", "layout"):
        source = Path(code.__file__).with_name(f"{name}.py")
        (folder / source.name).write_bytes(source.read_bytes())
    return folder


def test_the_digest_follows_the_content_of_loaded_modules(copy: Path) -> None:
    one = digest_of(copy.parent)
    assert one == digest_of(copy.parent)
    assert one != digest_of(copy.parent, imports="import stillroom.layout")
    with (copy / "layout.py").open("a") as stream:
        stream.write("# not loaded\n")
    assert one == digest_of(copy.parent)
    with (copy / "errors.py").open("a") as stream:
        stream.write("# loaded\n")
    assert one != digest_of(copy.parent)


def test_the_digest_does_not_depend_on_where_the_code_stands(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    copy.parent.rename(other)
    assert digest_of(other) == digest_of(Path(code.__file__).parent.parent)
