"""Floors under how well and how fast new models are; `benchmarks/nlu_quality.py` prints the figures."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, process_time

import pytest

from rasa_core_api.nlu.config import config_from_json, default_config
from rasa_core_api.nlu.data_loading import load_data
from rasa_core_api.nlu.evaluation import averages, cross_validate
from rasa_core_api.nlu.storage import load_model, save_model
from rasa_core_api.nlu.training import train_model

CINEMA = Path(__file__).resolve().parents[2] / "data" / "cinema" / "nlu.md"


def test_example_bot() -> None:
    """The default pipeline understands most of the example bot's texts that it has not seen."""
    found = cross_validate(default_config(), load_data(CINEMA), 5)
    assert found.accuracy() >= 0.6


@pytest.mark.conformance
def test_real_bot(conformance: Path) -> None:
    """On a real bot's data the default classifier is better than the historical one (0.793 and 0.733)."""
    data = load_data(conformance / "realbots" / "rasa-demo-2018" / "data" / "nlu" / "nlu.md")
    begin = process_time()
    found = cross_validate(config_from_json({"pipeline": ["intent_classifier_linear"]}, ""), data, 5)
    assert process_time() - begin < 15  # 0.4 s a fold, with room for slow machines
    assert found.accuracy() >= 0.82
    assert averages(found.intents())["macro_f1"] >= 0.77


def test_speed(tmp_path: Path) -> None:
    """A parse takes well under a millisecond, and a model is loaded in an instant."""
    data = load_data(CINEMA)
    model, _ = train_model(default_config(), data)
    save_model(model, tmp_path / "m")
    begin = perf_counter()
    model = load_model(tmp_path / "m")
    assert perf_counter() - begin < 0.5
    texts = [example.text for example in data.examples]
    best = float("inf")
    for _ in range(5):
        begin = perf_counter()
        for text in texts:
            model.parse(text)
        best = min(best, (perf_counter() - begin) / len(texts))
    assert best < 0.001


@pytest.mark.parametrize(
    "text",
    [
        "hello my dear " * 80_000,
        "!" * 1_000_000,
        " ".join(str(number) for number in range(150_000)),
        "x" * 1_000_000,
        "\ud800\x00\udfff " * 250_000,
        "".join(map(chr, range(0x4E00, 0x9000))) * 50,
    ],
)
def test_long_texts(text: str) -> None:
    """A text of a million characters is parsed at once, whatever it holds."""
    model, _ = train_model(default_config(), load_data(CINEMA))
    begin = process_time()
    assert model.parse(text)["text"] == text
    assert process_time() - begin < 0.5
