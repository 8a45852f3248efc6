"""The graph that DVC prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import InputError
from stillroom.pipeline.graph import Graph, parse_graph

DOT = """strict digraph {
"split";
"distil@a";
"distil@b";
"select";
"sources/data.dvc";
"split" -> "distil@a";
"split" -> "distil@b";
"distil@a" -> "select";
"distil@b" -> "select";
"sources/data.dvc" -> "split";
}
"""


def test_stages_and_edges_are_read_and_data_files_left_out() -> None:
    graph = parse_graph(DOT)
    assert graph.order == ("split", "distil@a", "distil@b", "select")
    assert graph.upstream["select"] == ("distil@a", "distil@b")
    assert graph.upstream["split"] == ()


def test_downstream_is_all_that_reads_from_a_stage() -> None:
    graph = parse_graph(DOT)
    assert graph.downstream(["distil@a"]) == {"select"}
    assert graph.downstream(["split"]) == {"distil@a", "distil@b", "select"}
    assert graph.downstream([]) == set()


def test_no_stages_is_wrong_input() -> None:
    with pytest.raises(InputError, match=r"dvc\.yaml: no stages"):
        parse_graph('strict digraph {\n"sources/data.dvc";\n}')


def test_a_circle_is_named() -> None:
    with pytest.raises(InputError, match="a, b depend on each other"):
        _ = Graph({"a": ("b",), "b": ("a",)}).order


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.tuples(st.integers(0, n), st.integers(0, n))))
    )
)
def test_order_puts_every_stage_after_what_it_reads(drawn: tuple[int, set[tuple[int, int]]]) -> None:
    count, pairs = drawn
    edges = {(max(pair), min(pair)) for pair in pairs if pair[0] != pair[1]}
    upstream = {str(n): tuple(str(low) for high, low in edges if high == n) for n in reversed(range(count + 1))}
    graph = Graph(upstream)
    position = {name: index for index, name in enumerate(graph.order)}
    assert sorted(position) == sorted(upstream)
    assert all(position[low] < position[name] for name, lows in upstream.items() for low in lows)
