import codecs

import pytest

from stillroom.data.encoding import decode
from stillroom.errors import InputError


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_byte_order_mark_is_dropped_and_tells_the_encoding(mark: bytes, encoding: str) -> None:
    decoded = decode(mark + "text,label\nnaïve,yes\n".encode(encoding), "rows.csv")
    assert (decoded.text, decoded.encoding) == ("text,label\nnaïve,yes\n", encoding)


def test_other_encoding_is_found_and_named() -> None:
    sentences = [
        "le café est très éloigné de la forêt",
        "où est la clé de la fenêtre ?",
        "déjà été à Orléans",
    ]
    decoded = decode("\n".join(sentences).encode("cp1252"), "rows.csv")
    assert decoded.text.split("\n") == sentences
    assert decoded.encoding == "cp1252"
    assert decoded.doubtful == sentences[0]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("где моя карта\nперевод не прошёл, помогите пожалуйста", "cp1251"),
        ("カードが届きません\nパスワードを忘れました。", "shift_jis"),
        ("gdzie jest moja karta płatnicza\nzażółć gęślą jaźń proszę o pomoc w sprawie przelewu", "cp1250"),
        ("I haven’t got my card\n“where is it” – please", "cp1252"),
        ("the caf\u00e9", "cp1252"),
    ],
)
def test_scripts_and_single_words_are_read_right(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding), "rows.csv").text == text


def test_mixed_encodings_name_the_first_line_that_breaks_off() -> None:
    data = b"text\nplain\n" + "caf\u00e9 one\n".encode() + b"plain\n" + "caf\u00e9 two\n".encode("cp1252")
    with pytest.raises(InputError, match=r"rows\.csv: line 5: not UTF-8, while line 3 is"):
        decode(data, "rows.csv")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  \r\n", codecs.BOM_UTF8])
def test_empty_files_are_refused(data: bytes) -> None:
    if data == codecs.BOM_UTF8:
        assert decode(data, "rows.csv").text == ""  # readers refuse a text without a header
    else:
        with pytest.raises(InputError, match="is empty"):
            decode(data, "rows.csv")


def test_nul_bytes_name_their_line() -> None:
    with pytest.raises(InputError, match="line 2: holds a NUL byte"):
        decode(b"text\nbro\0ken\n", "rows.csv")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"text,label\na,b\n" + codecs.BOM_UTF8 + b"text,label\n", 3),
        (codecs.BOM_UTF8 + codecs.BOM_UTF8 + b"text\n", 1),
    ],
)
def test_byte_order_mark_in_the_midst_is_refused(data: bytes, line: int) -> None:
    with pytest.raises(InputError, match=f"line {line}: begins with a byte-order mark"):
        decode(data, "rows.csv")


def test_broken_promise_of_a_mark_is_refused() -> None:
    with pytest.raises(InputError, match="line 2: not utf-8, which its byte-order mark promises"):
        decode(codecs.BOM_UTF8 + b"text\n\xff\xfe\n", "rows.csv")


def test_bytes_of_no_encoding_are_refused() -> None:
    with pytest.raises(InputError, match="save it as UTF-8"):
        decode(b"text\n" + bytes(range(128, 256)) * 3 + b"\n\x81\x8d\x8f\x90\x9d", "rows.csv")
