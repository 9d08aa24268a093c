"""The examples of the documentation do what it says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.program import Program, run_to_end

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_EXECUTED = re.compile(r"<!-- executed -->\n```(\w+)\n(.*?)```", re.S)
_FENCED = re.compile(r"^```.*?^```", re.S | re.M)
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


def examples(language: str) -> list[tuple[str, str]]:
    return [
        (page.name, match[2])
        for page in PAGES
        for match in _EXECUTED.finditer(page.read_text("utf-8"))
        if match[1] == language
    ]


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) - 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_row_of_a_table_has_the_columns_of_its_header(page: Path) -> None:
    columns = None
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if not line.startswith("|"):
            columns = None
            continue
        columns = columns or cells(line)
        assert cells(line) == columns, f"{page.name}, line {number}: {line}"


@pytest.mark.parametrize(("page", "code"), examples("python"), ids=lambda value: value[:30])
def test_python_examples(page: str, code: str) -> None:
    """A Python example prints what its comments say."""
    expected = "".join(line[2:] for line in code.splitlines(keepends=True) if line.startswith("# "))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (ran.stdout, ran.returncode) == (expected, 0), ran.stderr


@pytest.mark.parametrize(("page", "code"), examples("sh"), ids=lambda value: value[:30])
def test_shell_examples(page: str, code: str, tmp_path: Path) -> None:
    """A command of the documentation works as it is written."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    for line in code.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "python"
        ran = subprocess.run(
            [sys.executable, *words[1:]], capture_output=True, text=True, cwd=tmp_path, timeout=120,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to another page of the project leads to a file that is there."""
    prose = _FENCED.sub("", page.read_text("utf-8"))
    broken = [link for link in _LINK.findall(prose) if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.integration
def test_the_first_command_of_the_readme(tmp_path: Path) -> None:
    """What follows the installation trains the example and serves it; it answers as the README lets hope."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (command,) = re.findall(r"<!-- command: serve -->\n```sh\n(.*?)```", readme, re.S)
    install, *trainings, serve = command.replace("\\\n", "").split(" && ")[1:]
    assert install.strip().startswith(".venv/bin/pip install .")
    (tmp_path / "data").symlink_to(ROOT / "data")
    for training in trainings:
        ended = run_to_end(_arguments(training), tmp_path)
        assert ended.returncode == 0, ended.stderr
    (body,) = re.findall(r"curl -XPOST localhost:5005/conversations/ada/respond -d '(.*)'", readme)
    with Program([*_arguments(serve), "-p", "0"], tmp_path) as program:
        program.up()
        status, answer = program.ask("POST", "/conversations/ada/respond", json.loads(body))
        assert status == 200 and "Tonight" in json.loads(answer)[0]["text"]
        assert program.stop() == 0


def _arguments(command: str) -> list[str]:
    python, flag, *arguments = shlex.split(command)
    assert (python, flag) == (".venv/bin/python", "-m")
    return arguments


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=lambda page: page.name)
def test_every_page_is_found(page: Path) -> None:
    """The README leads to each page."""
    assert f"(docs/{page.name})" in (ROOT / "README.md").read_text("utf-8")
