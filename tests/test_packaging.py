"""What the package promises to whoever installs it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Modules of packages that are named otherwise.
MODULES = {"sqlalchemy": "sqlalchemy", "psycopg[binary]": "psycopg", "confluent-kafka": "confluent_kafka"}


def extras() -> dict[str, list[str]]:
    """The extras for users, as `setup.py` has them."""
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "EXTRAS":
            assert isinstance(node.value, ast.Dict)
            found = {
                ast.literal_eval(key): ast.literal_eval(value)
                for key, value in zip(node.value.keys, node.value.values, strict=True)
                if key is not None and ast.literal_eval(key) not in ("test", "dev")
            }
            assert found
            return found
    raise AssertionError("setup.py has no EXTRAS")


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Names of all packages that some module imports."""
    found: set[str] = set()
    for path in (ROOT / "rasa_core_api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("extra", list(extras().items()), ids=lambda item: item[0])
def test_an_extra_brings_what_is_used(extra: tuple[str, list[str]], imported: set[str]) -> None:
    """Whoever installs an extra gets something for it."""
    for requirement in extra[1]:
        name = re.split("[<>=]", requirement)[0].lower()
        assert MODULES.get(name, name) in imported, f"nothing imports {name}"
