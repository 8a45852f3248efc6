from pathlib import Path

import pytest

from stillroom.governance.card import Card, read_card


@pytest.mark.parametrize(
    ("text", "licences"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model\n", ("apache-2.0",)),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", ("mit",)),
        ("---\nlicense:\n- mit\n- apache-2.0\n---\n", ("mit", "apache-2.0")),
        ("---\nlicense: other\nlicense_name: gemma-terms\n---\n", ("gemma-terms",)),
        ("---\nlicense: other\n---\n", ()),
        ("---\nlanguage: en\n---\n", ()),
        ("---\n---\n", ()),
        ("# A model\n\nlicense: mit\n", ()),
        ("", ()),
    ],
)
def test_a_card_names_its_licence_in_its_metadata_block(text: str, licences: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    assert read_card(tmp_path) == Card(licences)


def test_a_checkpoint_without_a_card_is_silent(tmp_path: Path) -> None:
    assert read_card(tmp_path) == Card()


@pytest.mark.parametrize(
    "content", [b"---\nlicense: [mit\n---\n", b"---\n- license\n---\n", b"---\nlicense: \xff\n---\n"]
)
def test_a_card_that_cannot_be_read_says_why_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(content)
    card = read_card(tmp_path)
    assert card.licences == ()
    assert card.fault
    assert "Error" in card.fault
    assert "\n" not in card.fault
