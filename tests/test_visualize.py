"""Stories are drawn as one page; what is equal in them is drawn once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasa_core_api import train
from rasa_core_api.training.drawing import draw, layers
from rasa_core_api.training.story_picture import Picture, story_picture
from rasa_core_api.visualize import main
from tests.training.helpers import generated

DOMAIN = "intents: [a, b, c]\nentities: [e]\nactions: [u1, u2, u3]\n"
STORIES = '## one\n* a\n- u1\n* b{"e": "<x>"}\n- u2\n\n## two\n* a\n- u1\n* c\n- u3\n- u2\n'


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "domain.yml").write_text(DOMAIN)
    (tmp_path / "stories.md").write_text(STORIES)
    return tmp_path


def drawn(bot: Path, name: str, *more: str) -> str:
    output = bot / name
    files = ["-s", str(bot / "stories.md"), "-d", str(bot / "domain.yml")]
    assert main([*files, "-o", str(output), *more]) == 0
    return output.read_text("utf-8")


def labels(picture: Picture) -> list[str]:
    return sorted(node.label for node in picture.nodes if node.kind == "action")


def picture_of(stories: str, max_history: int = 2) -> Picture:
    data = generated(stories, history=None)
    return story_picture((dialogue.events() for dialogue in data.dialogues), max_history)


def test_shared_beginning() -> None:
    """Two stories that begin alike share their first nodes; a message is a box of its own."""
    picture = picture_of("## one\n* a\n- u1\n* b\n- u2\n## two\n* a\n- u1\n* c\n- u3\n")
    assert labels(picture) == ["u1", "u2", "u3"]
    assert sorted(node.label for node in picture.nodes if node.kind == "message") == ["a", "b", "c"]


def test_merging() -> None:
    """Equal endings are drawn once; different messages to the same action stay apart."""
    picture = picture_of("## one\n* a\n- u1\n- u4\n## two\n* b\n- u2\n- u4\n")
    assert labels(picture) == ["u1", "u2", "u4"]
    picture = picture_of("## one\n* a\n- u1\n## two\n* b\n- u1\n")
    assert labels(picture) == ["u1"] and len(picture.nodes) == 5


def test_page(bot: Path) -> None:
    """The page holds everything it needs, and texts cannot break it."""
    page = drawn(bot, "graph.html")
    assert page.count('class="node') == 8 and "<x>" not in page and "&lt;x&gt;" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert 'id="search"' in page and "wheel" in page


def test_data(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The data of the graph are there as JSON and DOT."""
    data = json.loads(drawn(bot, "graph.json"))
    kinds = {node["id"]: node["kind"] for node in data["nodes"]}
    assert {kinds[edge["source"]] for edge in data["edges"]} == {"start", "message", "action"}
    dot = drawn(bot, "graph.dot")
    assert dot.startswith("digraph") and dot.count("->") == len(data["edges"])
    assert f"Saved into {bot / 'graph.dot'}" in capsys.readouterr().out


def test_examples(bot: Path) -> None:
    """With NLU data a message is shown by an example of its intent and entities."""
    (bot / "nlu.md").write_text("## intent:a\n- good morning\n- hello\n\n## intent:b\n- plain\n- with [it](e)\n")
    shown = [node["label"] for node in json.loads(drawn(bot, "g.json", "-nlu", str(bot / "nlu.md")))["nodes"]]
    assert "good morning" in shown and "with it" in shown and "plain" not in shown


def test_formats(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Formats that cannot be written are refused with those that can."""
    with pytest.raises(SystemExit) as caught:
        drawn(bot, "graph.txt")
    assert caught.value.code == 2 and ".html, .json, .dot" in capsys.readouterr().err


def test_old_output_names(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where 0.11 drew an image, a page of its name is written, and that is told."""
    files = ["-s", str(bot / "stories.md"), "-d", str(bot / "domain.yml")]
    assert main([*files, "-o", str(bot / "graph.png")]) == 0
    assert "<svg" in (bot / "graph.html").read_text("utf-8") and not (bot / "graph.png").exists()
    assert "pictures are pages now" in capsys.readouterr().err


def test_large_graph() -> None:
    """500 stories are laid out in layers without losing a node."""
    words = "abcd"
    stories = "".join(
        f"## s{i}\n* {words[i % 4]}\n- u{i % 3 + 1}\n* {words[i // 4 % 4]}\n- u{i // 16 % 4 + 1}\n"
        f"* {words[i // 64 % 4]}\n- u{i // 128 % 4 + 1}\n"
        for i in range(500)
    )
    picture = picture_of(stories)
    found = layers(picture)
    assert sorted(node for layer in found for node in layer) == sorted(node.id for node in picture.nodes)
    assert len(draw(picture, "t")) > 1000


def test_block_plot(bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training can draw how story blocks are connected."""
    monkeypatch.chdir(bot)
    (bot / "p.yml").write_text("policies: [{name: MemoizationPolicy}]")
    files = ["-s", str(bot / "stories.md"), "-d", str(bot / "domain.yml"), "-o", str(bot / "model")]
    assert train.main([*files, "-c", str(bot / "p.yml"), "--debug_plots", "--quiet"]) == 0
    assert "STORY_START" in (bot / "story_blocks_connections.html").read_text("utf-8")


def test_proportions() -> None:
    """A layer of hundreds of nodes goes on in further rows, so that the whole picture has a screen's proportions."""
    from rasa_core_api.training.drawing import _places
    from rasa_core_api.training.story_picture import Node, Picture

    nodes = [Node(0, "START", "start"), *(Node(n, f"m{n}", "message") for n in range(1, 900))]
    places = _places(Picture(nodes, [(0, n) for n in range(1, 900)]))
    assert len(set(places.values())) == 900
    width, height = (max(axis) - min(axis) for axis in zip(*places.values(), strict=True))
    assert width < 4 * height
