"""What the policies of a model would do next, as clients are told."""

from __future__ import annotations

from attrs import frozen

from rasa_core_api.exceptions import PredictionFailed, RasaCoreError
from rasa_core_api.processor import Predicted, Processor
from rasa_core_api.tracker_views import EventVerbosity, TrackerView
from rasa_core_api.trackers import Tracker
from rasa_core_api.turn_values import Model


@frozen
class Scored:
    """A prediction as clients see it: `(action, score)` in domain order."""

    scores: list[tuple[str, float]]
    policy: str | None
    confidence: float
    view: TrackerView


def predicted_by(model: Model, tracker: Tracker) -> Predicted:
    """The next action. Raises `PredictionFailed` whatever went wrong in the policies."""
    try:
        return Processor.predict(model, tracker)
    except RasaCoreError as error:
        raise PredictionFailed(f"Server failure. Error: {error}") from error


def preferred_by(model: Model, tracker: Tracker) -> Predicted:
    """What the policies alone prefer, whatever follows up or restarts. Raises `PredictionFailed`."""
    try:
        return Processor.preferred(model, tracker)
    except RasaCoreError as error:
        raise PredictionFailed(f"Server failure. Error: {error}") from error


def scored(predicted: Predicted, tracker: Tracker, verbosity: EventVerbosity) -> Scored:
    """The scores of all actions."""
    scores = predicted.scores(tracker.domain)
    return Scored(
        [
            (name, score if score == score else 0.0)
            for name, score in zip(tracker.domain.action_names, scores, strict=True)
        ],
        predicted.policy,
        predicted.confidence,
        tracker.view(verbosity),
    )
