"""Predictions of the real releases, made again from the recorded events.

Each recorded `/predict` answer holds the events it was made from. From 0.12 on each action event also tells who chose
it and how surely.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rasa_core_api.events import FormValidation
from rasa_core_api.events.reading import EventReader
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import load_generation
from rasa_core_api.trackers import Tracker
from tests.conftest import CONFORMANCE

READER = EventReader(lambda: 0.0, lambda: "id")
TOLERANCE = 2e-6  # of networks in single precision
PREDICTIONS = ("action", "action_execution_rejected")


def manifests() -> list[Any]:
    """Entries of the manifests that are there: name, model, transcripts."""
    found: list[Any] = []
    for name in ("manifest.json",):
        path = CONFORMANCE / name
        found += json.loads(path.read_text()) if path.is_file() else []
    return [pytest.param(entry, id=entry["name"]) for entry in found] or [pytest.param(None, id="none")]


def answers(entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for transcript in entry["transcripts"]:
        with (CONFORMANCE / transcript).open() as lines:
            for line in lines:
                for step in json.loads(line)["steps"]:
                    if isinstance(step.get("answer"), dict):
                        yield step["path"], step["answer"]


def replayed(generation: Generation, events: list[Any]) -> Tracker:
    tracker = Tracker("u", generation.domain)
    tracker.extend(event for data in events if (event := READER.read(data)) is not None)
    return tracker


def is_validation(event: Mapping[str, Any]) -> bool:
    return event["event"] == FormValidation.type_name


@pytest.fixture(scope="module")
def loaded() -> dict[str, Generation]:
    return {}


def generation_of(entry: Any, loaded: dict[str, Generation]) -> Generation:
    if entry["name"] not in loaded:
        loaded[entry["name"]] = load_generation(CONFORMANCE / entry["core"])
    return loaded[entry["name"]]


@pytest.mark.conformance
@pytest.mark.parametrize("entry", manifests())
def test_predictions(conformance: Path, entry: Any, loaded: dict[str, Generation]) -> None:
    """The same events give the same scores by the same policy."""
    generation = generation_of(entry, loaded)
    assert generation.release.name == entry["era"].rpartition(".")[0]
    for path, answer in answers(entry):
        if "scores" not in answer:
            continue
        events = answer["tracker"]["events"]
        while events and is_validation(events[-1]):
            events.pop()  # logged by the prediction itself
        choice = generation.ensemble.choose(replayed(generation, events))
        scores = choice.normalised(generation.release.normalisation)
        recorded = {item["action"]: item["score"] for item in answer["scores"]}
        assert dict(zip(generation.domain.action_names, scores, strict=True)) == pytest.approx(
            recorded, abs=TOLERANCE
        ), path
        assert choice.policy == answer["policy"], path


@pytest.mark.conformance
@pytest.mark.parametrize("entry", manifests())
def test_choices(conformance: Path, entry: Any, loaded: dict[str, Generation]) -> None:
    """Every recorded choice is made again, and what a form policy logs with it."""
    generation = generation_of(entry, loaded)
    for path, answer in answers(entry):
        events = (answer.get("tracker") or answer).get("events") or []
        if not events or events[0].get("name") != "action_listen":
            continue  # not from the beginning
        tracker = Tracker("u", generation.domain)
        validations: list[Any] = []
        for data in events:
            if is_validation(data):
                validations.append(data)
                continue
            if data["event"] in PREDICTIONS and data.get("policy"):
                before = len(tracker.events)
                choice = generation.ensemble.choose(tracker)
                chosen = generation.domain.action_names[choice.index]
                assert (chosen, choice.policy) == (data["name"], data["policy"]), path
                assert choice.confidence == pytest.approx(data["confidence"], abs=TOLERANCE), path
                assert len(tracker.events) - before == len(validations), path
            else:
                tracker.extend(READER.read(validation) for validation in validations)  # type: ignore[misc]
            validations = []
            event = READER.read(data)
            if event is not None:
                tracker.update(event)
