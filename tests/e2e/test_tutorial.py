"""The commands of the tutorial and of the README's "Your own data", run one after the other as they stand there."""

import re
import shlex

import pytest

from tests.e2e.conftest import ROOT, Checkout, make_checkout, write_csv
from tests.toys import write_tiny_checkpoint

pytestmark = [pytest.mark.serial, pytest.mark.slow]

_BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with the files that the commands name."""
    checkout = make_checkout(tmp_path_factory.mktemp("tutorial"))
    write_csv(checkout.path / "train.csv", 900, 1)
    write_csv(checkout.path / "new.csv", 20, 2)
    write_tiny_checkpoint(checkout.path / "my-encoder")
    return checkout


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every block of a page, in order."""
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def follow(checkout: Checkout, kind: str, text: str) -> list[str]:
    """Do what a block says, apart from setting up the environment that this test has; the commands that were run."""
    if kind == "python":
        checkout.python(text)
        return ["python"]
    done = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "stillroom":
            checkout.stillroom(*words[1:])
            done.append(words[1])
        else:
            assert not words or words[0] in ("make", "source"), f"{line}: nobody has tried this"
    return done


def test_the_tutorial_works_as_it_is_written(prepared: Checkout) -> None:
    done = [command for block in blocks("docs/tutorial.md") for command in follow(prepared, *block)]
    assert done == ["doctor", "plan", "run", "report", "predict", "predict", "python"]
    assert (prepared.path / "labelled.csv").read_text().startswith("text,label,probability\n")


def test_so_does_the_readme_which_finds_everything_done(prepared: Checkout) -> None:
    receipts = {path: path.read_bytes() for path in (prepared.path / "my-run").rglob("receipts/*.json")}
    own = [block for block in blocks("README.md") if "--workspace" in block[1]]
    done = [command for block in own for command in follow(prepared, *block)]
    assert done == ["run"]
    assert receipts
    assert {path: path.read_bytes() for path in receipts} == receipts
