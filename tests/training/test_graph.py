"""Steps are ordered so that what leads somewhere comes first, and cycles are taken apart."""

from __future__ import annotations

from rasa_core_api.releases import BY_NAME
from rasa_core_api.training.graph import story_graph
from tests.training.helpers import read

RELEASE = BY_NAME["0.14"]


def test_order() -> None:
    """A step comes after those that lead to it, wherever the files have it."""
    files = read("## last\n> y\n* c\n## middle\n> x\n* b\n> y\n## first\n* a\n> x\n")
    graph = story_graph(files.steps, RELEASE)
    assert [step.block_name for step in graph.steps] == ["first", "middle", "last"]
    assert graph.sources == {}


def test_cycle_is_cut() -> None:
    """The edge that closes a cycle ends at a sink whose dialogues go on from a source of their own."""
    files = read("## first\n* a\n> x\n## loop\n> x\n* b\n> x\n## out\n> x\n* c\n")
    graph = story_graph(files.steps, RELEASE)
    loop = next(step for step in graph.steps if step.block_name == "loop")
    (sink,) = [end for end in loop.ends if end.name in graph.sources]
    assert graph.target(sink) in [start.name for start in loop.starts]
    assert "x" not in [end.name for end in loop.ends]
    out = next(step for step in graph.steps if step.block_name == "out")
    assert {end.name for end in loop.ends} & {start.name for start in out.starts}, "the way out stays"


def test_long_chain() -> None:
    """Thousands of steps in a row do not exhaust the stack."""
    text = "## s\n* a\n> x0\n" + "".join(f"## s{i}\n> x{i}\n* a\n> x{i + 1}\n" for i in range(3000))
    assert len(story_graph(read(text).steps, RELEASE).steps) == 3001
