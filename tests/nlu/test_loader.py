"""`-u` names a model of either format, an archive or a server; anything else is refused with a hint."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rasa_core_api.endpoints import EndpointConfig
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.interpreter import Interpreter
from rasa_core_api.nlu.loader import EmbeddedInterpreter, cache_directory, load_nlu, make_interpreter
from rasa_core_api.nlu.remote import RemoteInterpreter
from rasa_core_api.nlu.storage import save_model
from tests.nlu import legacy_models
from tests.nlu.servers import FakeServer


def made(nlu: str | None, url: str | None, server: FakeServer | None = None) -> Interpreter | None:
    server = server or FakeServer()
    endpoint = None if url is None else EndpointConfig.from_json({"url": url}, "nlu")
    return make_interpreter(nlu, endpoint, http=server.http, clock=server.clock, environ={})


def test_both_formats(tmp_path: Path) -> None:
    """A directory of rasa_nlu and the same model in the new format understand the same."""
    legacy_models.write_0_15(tmp_path / "old")
    old = load_nlu(tmp_path / "old")
    save_model(old, tmp_path / "new")
    new = load_nlu(tmp_path / "new")
    for text in ("hello rome 12345", "ice cream", "", "!!!"):
        assert new.parse(text) == old.parse(text)
    assert new.source == str(tmp_path / "new")


def test_archives(tmp_path: Path) -> None:
    """An archive is read like the directory in it; what is missing in it is named."""
    legacy_models.write_0_13(tmp_path / "model")
    for prefix in ("", "current/"):
        archive = tmp_path / "model.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in (tmp_path / "model").iterdir():
                file.write(path, prefix + path.name)
        model = load_nlu(archive)
        assert model.parse("rome")["entities"][0]["value"] == "Roma"
        assert model.source == str(archive)
    with zipfile.ZipFile(archive, "w") as file:
        file.write(tmp_path / "model" / "metadata.json", "metadata.json")
    with pytest.raises(UnsupportedModel, match=r"model\.zip.*crf_model\.pkl.*training_data\.json"):
        load_nlu(archive)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UnsupportedModel, match=r"model\.zip: refused archive: "):
        load_nlu(archive)


def test_hints(tmp_path: Path) -> None:
    """Training data, a folder of models and nothing at all are told apart, with what to do."""
    with pytest.raises(UnsupportedModel, match="there is no NLU model at"):
        load_nlu(tmp_path / "nothing")
    data = tmp_path / "data" / "nlu.md"
    data.parent.mkdir()
    data.write_text("## intent:greet\n- hello\n- hi\n")
    for path in (data, data.parent):
        with pytest.raises(UnsupportedModel, match="rasa_core_api.nlu.train -c CONFIG --data .*data"):
            load_nlu(path)
    (tmp_path / "data.json").write_text(json.dumps(legacy_models.DATA))
    with pytest.raises(UnsupportedModel, match=r"training data.*data\.json"):
        load_nlu(tmp_path / "data.json")
    legacy_models.write_0_13(tmp_path / "models" / "nlu" / "current")
    with pytest.raises(UnsupportedModel, match=r"is .*models/nlu/current meant\?"):
        load_nlu(tmp_path / "models")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnsupportedModel, match=r"notes\.txt is not an NLU model$"):
        load_nlu(tmp_path / "notes.txt")


def test_interpreters(tmp_path: Path) -> None:
    """An endpoint makes a remote interpreter, whose model `-u` names; `-u` alone a local one; neither none."""
    legacy_models.write_0_13(tmp_path)
    assert made(None, None) is None
    local = made(str(tmp_path), None)
    assert isinstance(local, EmbeddedInterpreter)
    server = FakeServer({"intent": {"name": "greet", "confidence": 1.0}, "entities": []})
    for nlu, query in ((None, b"q=x"), ("a/b/c", b"model=c&project=a%2Fb&q=x"), ("c", b"model=c&project=&q=x")):
        remote = made(nlu, "http://nlu:5000", server)
        assert isinstance(remote, RemoteInterpreter)
        server.wait(remote.parse("x"))
        assert server.asked[-1].uri == b"/parse?" + query
    parse = FakeServer().wait(local.parse("pizza to rome"))
    assert parse["entities"][0]["value"] == "Roma"


def test_network_parts(tmp_path: Path) -> None:
    """The duckling part of a model asks the server that the environment names."""
    metadata = legacy_models.write_0_13(tmp_path)
    metadata["pipeline"].append({"name": "ner_duckling_http", "url": "http://localhost:1"})
    legacy_models.write(tmp_path, metadata)
    server = FakeServer([{"body": "2", "start": 0, "end": 1, "dim": "number", "value": {"value": 2}}])
    interpreter = make_interpreter(
        str(tmp_path), None, http=server.http, clock=server.clock, environ={"RASA_DUCKLING_HTTP_URL": "http://d:8000"}
    )
    assert interpreter is not None
    assert [entity["value"] for entity in server.wait(interpreter.parse("2 rome"))["entities"]] == ["Roma", 2]


def test_cache_directory() -> None:
    """Retrained models are kept where the environment wants caches; nowhere without a home."""
    assert cache_directory({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/rasa_core_api/nlu")
    assert cache_directory({"HOME": "/h"}) == Path("/h/.cache/rasa_core_api/nlu")
    assert cache_directory({}) is None


def test_remote_needs_no_numpy() -> None:
    """A server that asks another NLU does not pay for numpy."""
    program = (
        "import sys; from rasa_core_api.nlu.loader import make_interpreter; from rasa_core_api.endpoints import *;"
        "e = EndpointConfig.from_json({'url': 'http://nlu'}, 'nlu');"
        "make_interpreter('a/b', e, http=None, clock=None, environ={});"
        "assert not {'numpy', 'h5py', 'pycrfsuite'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
