"""What reaches a log."""

import re

from hypothesis import given
from hypothesis import strategies as st

from stillroom.pipeline.output import Output, redactor


def told(data: list[bytes], environment: dict[str, str] | None = None, **limits: float) -> list[str]:
    lines: list[str] = []
    output = Output(lines.append, environment or {}, **limits)  # type: ignore[arg-type]
    for piece in data:
        output.feed(piece)
    output.close()
    return lines


def test_a_progress_bar_is_one_line_and_colours_go() -> None:
    assert told([b"10%\r50%\r100%\n\x1b[31mred\x1b[0m\r\n\n  \n", b"no end"]) == ["100%", "red", "no end"]


def test_a_flood_is_thinned_but_its_end_and_its_landmarks_are_kept() -> None:
    lines: list[str] = []
    output = Output(lines.append, {}, per_second=1.0, burst=10, tail=3, always=re.compile("ERROR"))
    output.feed(b"".join(b"line %d\n" % n for n in range(1000)) + b"ERROR: end\nafter\n")
    output.close()
    assert lines[:10] == [f"line {n}" for n in range(10)]
    assert lines[10] == "… 990 more lines, too fast to show"
    assert lines[11] == "ERROR: end"
    assert list(output.tail) == ["line 999", "ERROR: end", "after"]


def test_secrets_and_logins_are_blanked() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "hunter22",
        "MLFLOW_TRACKING_PASSWORD": "hunter22-longer",
        "X_TOKEN": "ab",
    }
    redact = redactor(environment)
    assert redact("key hunter22 and hunter22-longer, ab") == "key *** and ***, ab"
    assert redact("push to https://me:pw@host/x and s3://bucket/y") == "push to https://***@host/x and s3://bucket/y"


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_how_bytes_are_cut_into_pieces_does_not_matter(pieces: list[bytes]) -> None:
    assert told(pieces) == told([b"".join(pieces)])
