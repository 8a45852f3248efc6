"""Expressions are compiled by a process that may die of it, and never by this one first."""

import resource

import pytest
import regex

from stillroom.pattern import compiled


@pytest.mark.parametrize(
    "pattern", ["a+", r"\b(?:\d{4}[- ]?){3}\d{4}\b", "(?:.{0,200}refund){2}", "gr\u00fc\u00df", "\ud800"]
)
def test_a_sound_expression_is_what_the_package_makes_of_it(pattern: str) -> None:
    assert compiled(pattern) == regex.compile(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(?:" * 60 + "a" + ")+" * 60, "(?:(?:(?:a{1000}){1000}){1000})", "(?:" * 250 + "a" + ")" * 250],
    ids=["doubling", "unrolled", "deep"],
)
def test_what_would_eat_time_or_memory_is_refused_in_one_short_line(pattern: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="to compile, or nests too deeply; write it without") as refused:
        compiled(pattern)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (256 << 10), "kilobytes of this process"


def test_what_is_no_expression_says_where() -> None:
    with pytest.raises(ValueError, match=r"^'a\(b' does not compile: missing \) at character 3$"):
        compiled("a(b")
