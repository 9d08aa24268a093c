"""A module imports only from lower levels, or from its own package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "rasa_core_api"

LEVELS: dict[str, int] = {
    # 0 values
    "version": 0, "constants": 0, "exceptions": 0, "jsontext": 0, "messages": 0, "releases": 0, "events": 0,
    "slots": 0, "concurrency": 0, "interruption": 0, "fair_line": 0, "apart": 0,
    # 1 dialogue state
    "domain": 1, "states": 1, "tracker_views": 1, "tracker_state": 1, "trackers": 1, "featurizers": 1, "encoding": 1,
    # 2 parts
    "http": 2, "endpoints": 2, "http_client": 2, "config": 2, "interpreter": 2, "nlu": 2, "nlg": 2,
    "dispatcher": 2, "actions": 2,
    "policies": 2, "legacy": 2, "models": 2, "tracker_store": 2, "broker": 2, "brokers": 2, "channels": 2,
    "training": 2, "settings": 2, "logs": 2, "trusted": 2, "anonymising": 2,
    # 3 one turn
    "processor": 3, "turns": 3, "turn_values": 3, "claims": 3, "live_trackers": 3, "reminders": 3, "outbox": 3,
    "event_streams": 3, "retention": 3, "masking": 3, "predictions": 3, "remote_protocol": 3, "care": 3,
    "kept_answers": 3, "open_turns": 3, "store_health": 3,
    # 4 the agent
    "agent": 4, "served_model": 4, "lessons": 4, "model_poller": 4, "model_delivery": 4, "model_rollout": 4,
    "model_nlu": 4, "model_learning": 4,
    # 5 entry points
    "server": 5, "run": 5, "train": 5, "evaluate": 5, "test": 5, "visualize": 5, "check": 5, "conversations": 5,
    "copying": 5, "stored_conversations": 5, "model_server": 5, "service": 5, "worker": 5, "accepting": 5,
    "supervisor": 5, "__main__": 5,
    "__init__": 0,
}  # fmt: skip

#: Entry points that live inside a part.
ENTRY_POINTS = {"nlu/train", "nlu/evaluate", "nlu/convert"}

#: The web framework's server side is known here only.
WEB = {"channels", "http", "server", "model_server"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def room_of(name: str) -> str:
    room = name.split("/")[0]
    return "server" if room.startswith("server_") else room


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def level(name: str) -> int:
    return 5 if name in ENTRY_POINTS else LEVELS[room_of(name)]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_directions(path: Path) -> None:
    """No module imports from a higher level."""
    own = name_of(path)
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "rasa_core_api" or len(parts) < 2 or parts[1].startswith("__version"):
            continue
        room = room_of(parts[1])
        assert room in LEVELS, f"{own} imports {module}, which has no level"
        target = "/".join(parts[1:3])
        assert (5 if target in ENTRY_POINTS else LEVELS[room]) <= level(own), f"{own} imports {module}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_web_framework_stays_at_the_door(path: Path) -> None:
    """Klein and the web server are imported by the HTTP side only."""
    if room_of(name_of(path)) in WEB or name_of(path) == "run":
        return
    used = {module for module in imports(path) if module.startswith(("klein", "twisted.web.server"))}
    assert not used, f"{name_of(path)} imports {used}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_nothing_from_outside_is_executed(path: Path) -> None:
    """No module unpickles, evaluates or executes."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"{name_of(path)} calls {node.func.id}"
    unpicklers = {
        module for module in imports(path) if module.split(".")[0] in {"pickle", "cPickle", "dill", "shelve", "marshal"}
    }
    assert not unpicklers, f"{name_of(path)} imports {unpicklers}"
