"""Floors under how well and how fast new models are; `benchmarks/nlu_quality.py` prints the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasa_core_api.nlu.config import config_from_json, default_config
from rasa_core_api.nlu.data_loading import load_data
from rasa_core_api.nlu.evaluation import averages, cross_validate
from rasa_core_api.nlu.training import train_model
from tests.cpu import cpu_limit

CINEMA = Path(__file__).resolve().parents[2] / "data" / "cinema" / "nlu.md"


def test_example_bot() -> None:
    """The default pipeline understands most of the example bot's texts that it has not seen."""
    found = cross_validate(default_config(), load_data(CINEMA), 5)
    assert found.accuracy() >= 0.6


@pytest.mark.conformance
def test_real_bot(conformance: Path) -> None:
    """On a real bot's data the default classifier is better than the historical one (0.793 and 0.733)."""
    data = load_data(conformance / "realbots" / "rasa-demo-2018" / "data" / "nlu" / "nlu.md")
    found = cross_validate(config_from_json({"pipeline": ["intent_classifier_linear"]}, ""), data, 5)
    assert found.accuracy() >= 0.82
    assert averages(found.intents())["macro_f1"] >= 0.77


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
    with cpu_limit():
        assert model.parse(text)["text"] == text
