"""The command lines of NLU: train, evaluate and convert."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from rasa_core_api.nlu import convert, evaluate, train
from rasa_core_api.nlu.storage import load_model

from .test_training import DATA

NOW = datetime(2020, 3, 4, 5, 6, 7)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own log stays as it is."""
    for module in (train, evaluate, convert):
        monkeypatch.setattr(module, "begin_logging", lambda *_: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    from rasa_core_api.nlu.data_markdown import write_markdown

    path = tmp_path / "nlu.md"
    path.write_text(write_markdown(DATA), "utf-8")
    return path


def test_train(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model is written to path, project and name, and what is doubtful is told."""
    (tmp_path / "c.yml").write_text("pipeline: spacy_sklearn\n")
    out = tmp_path / "models"
    arguments = ["-c", str(tmp_path / "c.yml"), "--data", str(data), "-o", str(out)]
    assert train.main([*arguments, "--project", "p", "--fixed_model_name", "current"]) == 0
    model = load_model(out / "p" / "current")
    assert model.parse("hi there")["intent"]["name"] == "greet"
    shown = capsys.readouterr()
    assert "11 examples, 3 intents" in shown.out and f"wrote the model to {out / 'p' / 'current'}" in shown.out
    assert "intent_classifier_linear stands for intent_classifier_sklearn" in shown.err


def test_a_place_that_cannot_be_written(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error tells that it is the model that cannot be written, and where."""
    (tmp_path / "out").write_text("a file")
    assert train.main(["--data", str(data), "-o", str(tmp_path / "out")]) == 1
    assert f"the model cannot be written to {tmp_path / 'out'}" in capsys.readouterr().err


def test_names(data: Path, tmp_path: Path) -> None:
    """Without names the project is called default and the model after the time."""
    assert train.main(["-d", str(data), "-o", str(tmp_path / "m")], lambda: NOW) == 0
    assert load_model(tmp_path / "m" / "default" / "model_20200304-050607").trained_at == "20200304-050607"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fixed_model_name", "../../e"], "--fixed_model_name: '../../e' is no name for a directory"),
        (["--storage", "aws"], "--storage aws: models are written to disk only"),
        (["-c", "missing.yml"], "missing.yml: No such file"),
        (["--fixed_model_name", ".."], "no name for a directory"),
    ],
)
def test_refusals(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """What is not available, missing or wrong is one line, and nothing is written."""
    assert train.main(["-d", str(data), "-o", str(tmp_path / "m"), *options]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "m").exists()


def test_endpoints_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data behind an endpoints file is refused with what to do instead."""
    assert train.main(["--endpoints", "e.yml", "-o", str(tmp_path / "m")]) == 1
    assert "give its address with -u" in capsys.readouterr().err


def test_broken_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Broken data names file, line and reason, and trains nothing."""
    path = tmp_path / "nlu.json"
    path.write_text('{"rasa_nlu_data": {"common_examples": [\n{"text": "a"},\n{"text": 3}]}}')
    assert train.main(["-d", str(path), "-o", str(tmp_path / "m")]) == 1
    assert f"error: {path}, line 3: " in capsys.readouterr().err and not (tmp_path / "m").exists()


def test_from_an_address(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data can come from an address."""
    monkeypatch.setattr(train, "fetch", lambda url: data.read_bytes() if url == "http://x/nlu.md" else b"")
    assert train.main(["-u", "http://x/nlu.md", "-o", str(tmp_path / "m"), "--fixed_model_name", "n", "-t", "4"]) == 0
    assert load_model(tmp_path / "m" / "default" / "n").language == "en"
    assert "-t has no effect" in capsys.readouterr().err


def test_broken_data_from_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data from an address is named by it, in errors and in notes, not by the file that it was kept in."""
    texts = "## intent:a\n- one\n- [two](b\n## intent:b\n- three\n- four\n"
    monkeypatch.setattr(train, "fetch", lambda url: texts.encode())
    assert train.main(["-u", "http://x/nlu.md", "-o", str(tmp_path / "m")]) == 0
    assert "note: http://x/nlu.md, line 3: this looks like an entity" in capsys.readouterr().err
    monkeypatch.setattr(train, "fetch", lambda url: f"{texts}## regex:c\n- [\n".encode())
    assert train.main(["-u", "http://x/nlu.md", "-o", str(tmp_path / "n")]) == 1
    assert "error: http://x/nlu.md, line 8: the regular expression 'c'" in capsys.readouterr().err


def test_cross_validation(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model the pipeline is cross-validated; all reports and lists are written."""
    errors, right = tmp_path / "errors.json", tmp_path / "right.json"
    out = tmp_path / "out"
    arguments = ["-d", str(data), "-f", "3", "-o", str(out), "--errors", str(errors), "-s", str(right)]
    assert evaluate.main([*arguments, "--confmat", "x.png"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["examples"] == 11 and (out / "report.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert len(json.loads(errors.read_text())) + len(json.loads(right.read_text())) == 11
    shown = capsys.readouterr()
    assert "3-fold cross-validation" in shown.out and "--confmat write nothing" in shown.err


def test_evaluation(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model is asked about the data."""
    assert train.main(["-d", str(data), "-o", str(tmp_path / "m"), "--fixed_model_name", "n"]) == 0
    model = str(tmp_path / "m" / "default" / "n")
    assert evaluate.main(["-d", str(data), "-m", model, "-o", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["intent_evaluation"]["accuracy"] == 1.0
    assert "accuracy 1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "evaluation"], "needs a model"),
        (["-m", "x", "-c", "y"], "a model has its own pipeline"),
        (["-m", "x", "--mode", "crossvalidation"], "takes no -m"),
        (["-f", "1"], "--folds 1"),
        (["-f", "99"], "--folds 99"),
        (["-m", "missing"], "missing"),
    ],
)
def test_evaluation_refusals(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """Options that do not fit together are told in one line."""
    assert evaluate.main(["-d", str(data), "-o", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.conformance
def test_convert(conformance: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of 2018 answers the same after it was converted, and keeps its training data."""
    old = conformance / "realbots" / "rasa-demo-2018" / "models" / "nlu" / "current"
    assert convert.main([str(old), str(tmp_path / "new")]) == 0
    assert "retrained: none" in capsys.readouterr().out
    model = load_model(tmp_path / "new", with_data=True)
    assert model.data is not None and len(model.data.examples) == 1284
    for line in (conformance / "nlu" / "rasa-demo-2018.jsonl").read_text("utf-8").splitlines():
        recorded = json.loads(line)
        found, expected = model.parse(recorded["text"]), recorded["parse"]
        assert found["intent"]["name"] == expected["intent"]["name"]
        assert found["intent"]["confidence"] == pytest.approx(expected["intent"]["confidence"], abs=1e-5)
    assert convert.main([str(old), str(tmp_path / "new")]) == 1
    assert "exists" in capsys.readouterr().err
    assert convert.main([str(tmp_path / "new"), str(tmp_path / "newer")]) == 1
    assert "in the new format already" in capsys.readouterr().err


def test_program(data: Path, tmp_path: Path) -> None:
    """The program runs on its own, with one thread for numpy, and looking at data or options loads no numpy."""
    code = (
        "import sys, rasa_core_api.nlu.data_loading, rasa_core_api.nlu.config, rasa_core_api.nlu.features\n"
        "import rasa_core_api.nlu.train, rasa_core_api.nlu.evaluate, rasa_core_api.nlu.model\n"
        "import rasa_core_api.nlu.storage, rasa_core_api.nlu.training\n"
        "assert 'numpy' not in sys.modules and 'pycrfsuite' not in sys.modules, 'heavy import'\n"
        "import os\n"
        "code = rasa_core_api.nlu.train.main(sys.argv[1:])\n"
        "assert os.environ['OPENBLAS_NUM_THREADS'] == '1'\n"
        "sys.exit(code)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    arguments = ["-d", str(data), "-o", str(tmp_path / "m"), "--fixed_model_name", "n", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / "default" / "n" / "metadata.json").exists()
