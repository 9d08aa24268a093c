"""What happens to turns, conversations and memory when one model replaces another."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api.endpoints import EndpointConfig, Endpoints
from rasa_core_api.models.generation import Generation
from rasa_core_api.policies.ensemble import Ensemble
from tests.fakes import Bot, FakeHTTP, ScriptPolicy, _Form
from tests.models.samples import packed
from tests.models.wire import CLOSE, reply
from tests.samples import domain
from tests.test_model_delivery import Site
from tests.test_model_rollout import canary, senders, site_with

URL = "http://actions/webhook"


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What is freed here is freed by itself: the collector runs rarely, and never over what was frozen."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watch(site: Site | Bot) -> list[weakref.ref[Any]]:
    """Whether the model in service lives."""
    model = site.agent.model
    return [weakref.ref(model), weakref.ref(model.domain), weakref.ref(model.ensemble)]


def alive(watched: list[weakref.ref[Any]]) -> list[Any]:
    return [ref() for ref in watched if ref() is not None]


def swap(bot: Bot, fingerprint: str) -> None:
    """Serve a model that says goodbye where the one before greets."""
    other = domain("0.11")
    ensemble = Ensemble([ScriptPolicy({"greet": ["utter_bye"]}), _Form()], other)
    bot.agent.install(Generation(domain=other, ensemble=ensemble, fingerprint=fingerprint, metadata={}))


def test_turns_in_flight() -> None:
    """Turns under way, and those waiting behind them, end on the model they began with; then it is freed."""
    gates: dict[str, Deferred[Any]] = {name: Deferred() for name in "abc"}
    bot = Bot(
        domain("0.11"),
        {"greet": ["action_search", "utter_hi"]},
        http=FakeHTTP({URL: lambda call: gates[call["sender_id"]]}),
        endpoints=Endpoints(action_endpoint=EndpointConfig(url=URL, where="action_endpoint")),
    )
    bot.domain = None  # type: ignore[assignment]  # the test's own hold on the model
    watched = watch(bot)
    said: dict[str, list[Any]] = {}
    for sender in gates:
        Deferred.fromCoroutine(bot.agent.handle_text("/greet", sender)).addCallback(
            lambda answers, sender=sender: said.setdefault(sender, [answer.text for answer in answers])
        )
    for _ in range(20):
        bot.clock.advance(0)
    assert len(bot.http.calls) == 3
    for number in range(5):
        swap(bot, f"f-{number + 2}")
    assert [answer["text"] for answer in bot.say("/greet", "d")] == ["bye"]
    assert alive(watched)
    for sender, gate in gates.items():
        assert alive(watched)
        gate.callback((200, {}))
        for _ in range(20):
            bot.clock.advance(0)
        assert said[sender] == ["hello None"]
    assert alive(watched) == []
    assert [answer["text"] for answer in bot.say("/greet", "a")] == ["bye"]


def test_pulled_models_are_freed(tmp_path: Path) -> None:
    """A model that was pulled is freed when the next one serves, though conversations were held with it."""
    site = Site(tmp_path)
    watched: list[weakref.ref[Any]] = []
    for number in range(4):
        site.answer = [reply(200, packed(tmp_path / "model", f"hello {number}"), ETag=f"v{number}"), CLOSE]
        site.start() if not number else site.wait(100)
        assert [message["text"] for message in site.bot.say("/greet", f"s{number}")] == [f"hello {number}"]
        assert alive(watched) == []
        watched += watch(site)
    site.stop()


def test_replaced_canary_is_freed(tmp_path: Path) -> None:
    """So is a canary and what was compared with it."""
    from tests.test_model_rollout import PACKED

    PACKED.update(main=packed(tmp_path / "a", "main"), same=packed(tmp_path / "b", "same"))
    PACKED["third"] = packed(tmp_path / "c", "third")
    seconds = {"next": "same", "shade": "same"}
    site = site_with(tmp_path, seconds, shadow="http://models/shade", **canary()).start()
    inside, outside = senders(True), senders(False)
    main = watch(site)
    for _ in range(6):
        site.bot.say("/greet", next(inside))
        site.bot.say("/greet", next(outside))
        site.wait(0)
    assert site.delivery._canary is not None and site.delivery._shadow is not None
    found: list[Any] = [site.delivery._canary._model, site.delivery._shadow._generation]
    seconds_alive = [weakref.ref(item.domain) for item in found] + [weakref.ref(item.ensemble) for item in found]
    found.clear()
    seconds |= {"next": "third", "shade": "third", "core": "third"}
    site.wait(100)
    for _ in range(3):
        assert [message["text"] for message in site.bot.say("/greet", next(inside))] == ["third"]
        site.bot.say("/greet", next(outside))
        site.wait(0)
    assert alive(seconds_alive) == [] and alive(main) == []
    site.stop()
