from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.nlu.data import Example, Lookup, TrainingData
from rasa_core_api.nlu.data_loading import guess_format, load_data

GREET = "## intent:greet\n- hello\n- hi\n"


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        ({"data": []}, "x.json", "wit"),
        ({"data": {}}, "x.json", None),
        ({"luis_schema_version": "2"}, "x.json", "luis"),
        ({"rasa_nlu_data": {}}, "x.json", "rasa"),
        ({"supportedLanguages": []}, "agent.json", "dialogflow_agent"),
        ({"version": "1"}, "package.json", "dialogflow_package"),
        ({"responses": []}, "x.json", "dialogflow_intent"),
        ({"isEnum": True}, "x.json", "dialogflow_entity"),
        ([], "a_usersays_en.json", "dialogflow_companion"),
        ([], "a_entries_en.json", "dialogflow_companion"),
        ([], "a.json", None),
    ],
)
def test_guess(value: Any, name: str, expected: str | None) -> None:
    """The first rule that holds names the format."""
    assert guess_format(value, name) == expected


def test_folder(tmp_path: Path) -> None:
    """All files of a folder are merged, whatever their formats; hidden files are left out, hidden folders are not."""
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "b.md").write_text(GREET)
    (tmp_path / ".secret.md").write_text("nonsense")
    (tmp_path / "a.json").write_text('{"rasa_nlu_data": {"common_examples": [{"text": "bye", "intent": "bye"}]}}')
    (tmp_path / "agent.json").write_text('{"supportedLanguages": []}')
    (tmp_path / "go.json").write_text('{"name": "go", "responses": []}')
    (tmp_path / "go_usersays_de.json").write_text('[{"data": [{"text": "los"}]}]')
    data = load_data(tmp_path, "de")
    assert data.intents() == ["bye", "go", "greet"] and len(data.examples) == 4


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("README", b"read me", "Unknown data format for file"),
        ("a.json", b'{"x": 1}', "Unknown data format for file"),
        ("a.json", b'{"x": \n1,}', "line 2: this is not JSON"),
        ("a.md", b"## intent:x\n- a\n- \xff\n", "line 3: the bytes here are not UTF-8"),
    ],
)
def test_one_bad_file_fails_the_folder(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """A file that cannot be used is named, and nothing is loaded."""
    (tmp_path / "good.md").write_text(GREET)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidTrainingData, match=reason) as caught:
        load_data(tmp_path)
    assert caught.value.details["file"] == str(tmp_path / name)


def test_nothing_there(tmp_path: Path) -> None:
    """A missing path, an empty folder and a file without data say so."""
    with pytest.raises(InvalidTrainingData, match="No such file"):
        load_data(tmp_path / "missing.md")
    with pytest.raises(InvalidTrainingData, match="no training data"):
        load_data(tmp_path)
    (tmp_path / "empty.md").write_text("## intent:x\n")
    with pytest.raises(InvalidTrainingData, match="no training data"):
        load_data(tmp_path / "empty.md")


def test_later_synonym_wins(tmp_path: Path) -> None:
    """Of two values for one synonym the later file's is used, and the operator is told."""
    (tmp_path / "a.md").write_text("## synonym:one\n- x\n")
    (tmp_path / "b.md").write_text("## synonym:two\n- x\n")
    data = load_data(tmp_path)
    assert data.synonyms == {"x": "two"}
    assert data.remarks() == ["the synonym 'x' stands for 'one' and for 'two'; the last one is used"]


def test_remarks() -> None:
    """Rare intents and entities and empty names are doubtful, not wrong."""
    entity = {"start": 0, "end": 1, "value": "a", "entity": "e"}
    data = TrainingData([Example("a b", "x", (entity,)), Example("c", "")])
    assert data.remarks() == [
        "1 examples have an empty intent name",
        "the intent 'x' has only 1 example",
        "the entity 'e' has only 1 example",
    ]


def test_lookup_files(tmp_path: Path) -> None:
    """A table's file is looked for where the program runs and beside the data; blank lines in it are skipped."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "nlu.md").write_text(f"{GREET}## lookup:a\ncities.txt\n## lookup:b\n- Oslo\n")
    (tmp_path / "data" / "cities.txt").write_text("Rome\n\n New York \n")
    (tmp_path / "nlu.json").write_text(
        json.dumps({"rasa_nlu_data": {"lookup_tables": [{"name": "a", "elements": "b"}]}})
    )
    data = load_data(tmp_path / "data" / "nlu.md").with_lookups_read([tmp_path])
    assert data.lookups == [Lookup("a", ("Rome", "New York")), Lookup("b", ("Oslo",))]
    with pytest.raises(InvalidTrainingData, match=r"nlu\.json, line 1: .*'a' names the file 'b', which is not there"):
        load_data(tmp_path / "nlu.json").with_lookups_read([tmp_path])


def test_lookup_files_of_a_model() -> None:
    """Data that came with a model opens no file."""
    data = TrainingData(lookups=[Lookup("a", "/etc/hostname")]).with_lookups_read([])
    assert data.lookups == [] and "'a' names the file" in data.warnings[0]
