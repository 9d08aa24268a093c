"""Helpers of the stores' tests: running coroutines to their end, and building events."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import count
from typing import Any, TypeVar

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from rasa_core_api.concurrency import Slices
from rasa_core_api.events import ActionExecuted, Event, SlotSet, UserUttered
from rasa_core_api.tracker_store.texts import StoredEvents

T = TypeVar("T")


def wait(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of a coroutine; the real reactor runs meanwhile. An error after 20 s."""
    if not reactor.running:  # in a fixture before the first test
        pytest_twisted.blockon(deferLater(reactor, 0))
    done = Deferred.fromCoroutine(work)
    done.addTimeout(20, reactor)
    results: list[Any] = []
    done.addBoth(results.append)
    while not results:
        reactor.runUntilCurrent()
        if not results:
            pause = reactor.timeout()
            reactor.doIteration(0.05 if pause is None else min(pause, 0.05))
    if isinstance(results[0], Failure):
        results[0].raiseException()
    result: T = results[0]
    return result


def stored_events() -> StoredEvents:
    numbers = count()
    return StoredEvents(lambda: f"id{next(numbers)}", Slices(reactor))


def slots(*values: object, time: float = 1.5) -> list[Event]:
    return [SlotSet(key="x", value=value, timestamp=time) for value in values]


def turn(text: str = "hello", time: float = 1500000000.25) -> list[Event]:
    """The events of a short turn."""
    data = {
        "intent": {"name": "greet", "confidence": 0.93},
        "entities": [{"entity": "city", "value": "Zürich", "start": 0, "end": 6}],
        "intent_ranking": [{"name": "greet", "confidence": 0.93}],
        "text": text,
    }
    return [
        UserUttered(text=text, parse_data=data, input_channel="rest", timestamp=time),
        SlotSet(key="city", value="Zürich", timestamp=time),
        ActionExecuted(action_name="utter_hi", policy="policy_0_MemoizationPolicy", confidence=1.0, timestamp=time),
        ActionExecuted(action_name="action_listen", policy=None, confidence=None, timestamp=time),
    ]


def texts(events: list[Event]) -> list[str]:
    return [event.as_json() for event in events]
