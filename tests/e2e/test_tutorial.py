"""The commands of the tutorial and of the README's "Your own data", run one after the other as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from stillroom import layout
from stillroom.batching import load_tokeniser, tokenise
from stillroom.params import ComputeParams, TeacherParams
from stillroom.teacher.finetune import fine_tune
from stillroom.training import Scratch
from tests.e2e.conftest import ROOT, Checkout, make_checkout, write_csv
from tests.toys import LABELS, toy_params, toy_rows, write_checkpoint, write_tiny_checkpoint

pytestmark = [pytest.mark.xdist_group("tutorial"), pytest.mark.slow]

_BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with the files that the commands name."""
    folder = tmp_path_factory.mktemp("tutorial")
    checkout = make_checkout(folder)
    write_csv(checkout.path / "train.csv", 1500, 1)
    write_csv(checkout.path / "new.csv", 20, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(layout.STATE_VARIABLE, str(folder / "state"))
        write_encoder(checkout.path / "my-encoder", write_tiny_checkpoint(folder / "untrained"))
    return checkout


def write_encoder(folder: Path, untrained: Path) -> None:
    """An encoder that knows the topics of the toy texts, as a pre-trained one knows its language."""
    settings = TeacherParams(**toy_params()["teacher"])
    tokeniser = load_tokeniser(untrained / "tokenizer.json", settings.max_length)
    train, validation = (
        (tokenise(tokeniser, rows.text, settings.max_length), rows) for rows in (toy_rows(400, 5), toy_rows(60, 6))
    )
    machine = ComputeParams(threads=1, precision="fp32", device="cpu")
    model, _ = fine_tune(untrained, settings, LABELS, train, validation, 0, 0, machine, Scratch("encoder"))
    write_checkpoint(folder, model.encoder, tokeniser)


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
