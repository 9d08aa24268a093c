"""Teaching a bot by talking to it: a client of the HTTP API for the terminal.

The conversation stays on the server; what is wrong is corrected there, and what was said is exported as stories.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.training.story_writer import marked_text, story_of

#: Seconds that an answer may take; an action server has its time in it.
TIMEOUT = 60.0
#: Seconds that learning from a correction may take.
LEARNING = 660.0
#: Bytes of an answer that are read.
MAX_ANSWER = 64 * 1024 * 1024

Ask = Callable[[str], str]
Say = Callable[[str], None]
Events = list[dict[str, Any]]

HELP = "an empty line accepts; /menu, control-C or control-D opens the menu"
MENU = "[c]ontinue, [u]ndo, [f]resh start, for[k], [e]xport, [q]uit: "


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect would carry the token to another host."""


@frozen
class Api:
    """A server's HTTP API. Its methods raise `TrainingFailed` with what the server said."""

    url: str
    token: str | None = field(default=None, repr=False)
    timeout: float = TIMEOUT

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """The answer's JSON; None for an empty one."""
        timeout = LEARNING if path == "/finetune" else self.timeout
        if self.token is not None:
            query["token"] = self.token
        address = f"{self.url.rstrip('/')}{path}{'?' + urllib.parse.urlencode(query) if query else ''}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = urllib.request.Request(address, data, headers, method=method)
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=timeout) as response:
                raw = response.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            said = error.read(4096).decode("utf-8", "replace")
            raise TrainingFailed(f"{method} {path}: the server answered {error.code}: {_reason(said)}") from None
        except OSError as error:
            raise TrainingFailed(f"{self.url} cannot be reached: {getattr(error, 'reason', error)}") from None
        if len(raw) > MAX_ANSWER:
            raise TrainingFailed(f"{method} {path}: the answer is longer than {MAX_ANSWER} bytes")
        try:
            return json.loads(raw) if raw.strip() else None
        except ValueError:
            raise TrainingFailed(f"{method} {path}: the answer is no JSON; is {self.url} a server's API?") from None


def _reason(said: str) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return said[:200]


@frozen
class Export:
    """Files that a session adds to: stories and NLU examples in markdown."""

    stories: Path
    nlu: Path


class _Menu(Exception):
    pass


@define
class Session:
    """One conversation that is taught. `ask` returns a line or raises EOFError; `say` shows one."""

    api: Api
    sender_id: str
    ask: Ask
    say: Say
    export: Export
    finetune: bool = False
    _intents: list[str] = field(factory=list, init=False)
    _actions: list[str] = field(factory=list, init=False)
    _heard: list[tuple[str, str]] = field(factory=list, init=False)

    def run(self) -> None:
        """Until the user quits. Raises `TrainingFailed` where the server cannot be used from the beginning."""
        domain = self.api.call("GET", "/domain")
        self._intents = [next(iter(item)) if isinstance(item, Mapping) else item for item in domain["intents"]]
        self._actions = list(domain["actions"])
        self.say(f"teaching conversation {self.sender_id}: {HELP}")
        while True:
            try:
                if self._listening():
                    self._message()
                else:
                    self._action()
                continue
            except (_Menu, EOFError, KeyboardInterrupt):
                pass
            except TrainingFailed as error:  # what was taught so far can still be exported
                self.say(f"  {error}")
            try:
                if not self._menu():
                    return
            except TrainingFailed as error:
                self.say(f"  {error}")

    # --- messages ---------------------------------------------------------------------------------

    def _message(self) -> None:
        text = self._line("your message: ")
        if not text:
            return
        before = self._events("ALL")
        answer = self.api.call("POST", self._path("/messages"), {"sender": "user", "message": text, "text": text})
        event = next(item for item in reversed(_events_of(answer)) if item["event"] == "user")
        parsed = dict(event["parse_data"])
        intent = (parsed.get("intent") or {}).get("name")
        if text.startswith("/") and intent in self._intents:
            return
        self.say(f"  understood as {intent}: {marked_text(text, parsed.get('entities') or ())}")
        if intent in self._intents and self._yes("is that right? [Y/n] "):
            self._heard.append((intent, marked_text(text, parsed.get("entities") or ())))
            return
        chosen = self._choose("intent", self._intents, intent or "")
        marked = self._line("entities, marked as [words](entity) or [words](entity:value); empty keeps them: ")
        entities = parsed.get("entities") or []
        if marked:
            text_again, entities = _entities(marked)
            if text_again != text:
                self.say("  that is not the same message; the entities stay as they were")
                entities = parsed.get("entities") or []
        parsed.update(intent={"name": chosen, "confidence": 1.0}, entities=entities, text=text)
        self.api.call("PUT", self._path("/tracker/events"), before)
        self.api.call(
            "POST",
            self._path("/messages"),
            {"sender": "user", "message": text, "text": text, "parse_data": parsed},
        )
        self._heard.append((chosen, marked_text(text, entities)))

    # --- actions ----------------------------------------------------------------------------------

    def _action(self) -> None:
        predicted = self.api.call("POST", self._path("/predict"))
        scores = predicted["scores"]
        best = max(scores, key=lambda item: item["score"])  # the first maximum
        self._show(predicted["tracker"].get("events") or ())
        self.say(f"  the bot wants to: {best['action']} ({best['score']:.2f})")
        name = best["action"]
        if not self._yes("is that right? [Y/n] "):
            ranked = sorted(scores, key=lambda item: -item["score"])
            name = self._choose("action", [item["action"] for item in ranked], "")
        right = name == best["action"]
        self._about_forms(name, predicted["tracker"])
        policy, confidence = (predicted.get("policy"), best["score"]) if right else (None, 1.0)
        try:
            answer = self.api.call(
                "POST",
                self._path("/execute"),
                {"action": name, "name": name, "policy": policy, "confidence": confidence},
            )
        except TrainingFailed as error:
            self.say(f"  {error}; it is noted without being run")
            answer = self._post({"event": "action", "name": name, "policy": policy, "confidence": confidence})
        for message in (answer or {}).get("messages") or ():
            self.say(f"bot: {message.get('text') or json.dumps(message)}")
        if not right and self.finetune:
            self._learn()

    def _learn(self) -> None:
        self.say("  learning ...")
        try:
            self.api.call("POST", "/finetune", self._events("AFTER_RESTART"))
        except TrainingFailed as error:
            self.say(f"  {error}; export the stories and train with them")
        else:
            self.say("  learnt: the bot does the same next time")

    def _about_forms(self, name: str, tracker: Mapping[str, Any]) -> None:
        form = tracker.get("active_form") or {}
        active = form.get("name")
        if not active:
            return
        if name not in (active, ACTION_LISTEN):
            self._post({"event": "action_execution_rejected", "name": active, "policy": None, "confidence": None})
            return
        again = name == active and form.get("rejected") and tracker.get("latest_action_name") == ACTION_LISTEN
        if again and not self._yes(f"should {active} validate the message? [Y/n] "):
            self._post({"event": "form_validation", "validate": False})

    # --- the menu ---------------------------------------------------------------------------------

    def _menu(self) -> bool:
        """False where the session is over."""
        try:
            choice = self.ask(MENU).strip().lower()[:1]
        except EOFError:
            choice = "q"
        if choice == "u":
            self._undo()
        elif choice == "f":
            self._restart()
        elif choice == "k":
            self._fork()
        elif choice == "e":
            self._export()
            return self._menu()
        return choice != "q"

    def _undo(self) -> None:
        events = self._events("ALL")
        last = max((n for n, item in enumerate(events) if _is_step(item)), default=None)
        if last is None:
            self.say("  there is nothing to undo")
            return
        if events[last]["event"] == "user" and self._heard:
            self._heard.pop()
        self.api.call("PUT", self._path("/tracker/events"), events[:last])

    def _restart(self) -> None:
        self._post({"event": "restart"})
        self._post({"event": "action", "name": ACTION_LISTEN})

    def _fork(self) -> None:
        events = self._events("AFTER_RESTART")
        messages = [n for n, item in enumerate(events) if item["event"] == "user"]
        for number, index in enumerate(messages, 1):
            self.say(f"  {number}. {events[index]['text']}")
        answer = self.ask("go on from before which message? ").strip()
        if not answer.isdigit() or not 1 <= int(answer) <= len(messages):
            self.say("  there is no such message")
            return
        kept = events[: messages[int(answer) - 1]]
        self._post({"event": "restart"})
        for event in kept:
            self._post(event)

    def _export(self) -> None:
        stories = stories_in(self._events("ALL"))
        _append(self.export.stories, "\n".join(stories))
        _append(self.export.nlu, examples_of(self._heard))
        said = len(self._heard)
        self._heard.clear()
        self.say(f"  added {len(stories)} stories to {self.export.stories}, {said} examples to {self.export.nlu}")

    # --- the rest ---------------------------------------------------------------------------------

    def _path(self, rest: str) -> str:
        return f"/conversations/{urllib.parse.quote(self.sender_id, safe='')}{rest}"

    def _events(self, verbosity: str) -> Events:
        return _events_of(self.api.call("GET", self._path("/tracker"), include_events=verbosity))

    def _post(self, event: Mapping[str, Any]) -> Any:
        return self.api.call("POST", self._path("/tracker/events"), event)

    def _listening(self) -> bool:
        steps = [item for item in self._events("APPLIED") if _is_step(item, listening=True)]
        return not steps or (steps[-1]["event"] == "action" and steps[-1]["name"] == ACTION_LISTEN)

    def _show(self, events: Iterable[Mapping[str, Any]]) -> None:
        told = [f"you: {e['text']}" if e["event"] == "user" else f"bot: {e['name']}" for e in events if _is_step(e)]
        self.say("\n".join(f"    {line}" for line in told[-6:]))

    def _line(self, prompt: str) -> str:
        line = self.ask(prompt).strip()
        if line == "/menu":
            raise _Menu
        return line

    def _yes(self, prompt: str) -> bool:
        while (answer := self._line(prompt).lower()) not in ("", "y", "yes", "n", "no"):
            self.say(f"  answer y or n, not {answer!r}")
        return answer not in ("n", "no")

    def _choose(self, what: str, names: Sequence[str], otherwise: str) -> str:
        for number, name in enumerate(names, 1):
            self.say(f"  {number:3}. {name}")
        while True:
            answer = self._line(f"which {what}? (number or name) ") or otherwise
            if answer.isdigit() and 1 <= int(answer) <= len(names):
                return names[int(answer) - 1]
            if answer in names:
                return answer
            self.say(f"  the domain has no {what} {answer!r}")


def _events_of(answer: Any) -> Events:
    tracker = answer.get("tracker", answer)
    return list(tracker.get("events") or ())


def _is_step(event: Mapping[str, Any], listening: bool = False) -> bool:
    return event["event"] == "user" or (
        event["event"] == "action" and (listening or event.get("name") != ACTION_LISTEN)
    )


def _entities(marked: str) -> tuple[str, list[dict[str, Any]]]:
    from rasa_core_api.nlu.data_markdown import parse_example

    example = parse_example(marked, None)
    return example.text, [dict(entity) for entity in example.entities]


def stories_in(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """A story for each part between restarts that says anything."""
    reader = EventReader(time.time, lambda: "")
    parts: list[list[Any]] = [[]]
    for item in events:
        if item["event"] == "restart":
            parts.append([])
        else:
            parts[-1] += reader.read_list([item])
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    stories: list[str] = []
    for part in parts:
        story = story_of(f"interactive story {len(stories) + 1}, {stamp}", part)
        if story.count("\n") > 1:
            stories.append(story)
    return stories


def examples_of(heard: Iterable[tuple[str, str]]) -> str:
    """NLU data in markdown: each intent once, with its messages in the order heard, each once."""
    by_intent: dict[str, dict[str, None]] = {}
    for intent, text in heard:
        by_intent.setdefault(intent, {})[" ".join(text.splitlines())] = None
    return "\n".join(
        f"## intent:{intent}\n" + "".join(f"- {text}\n" for text in texts) for intent, texts in by_intent.items()
    )


def _append(path: Path, text: str) -> None:
    if not text:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if file.tell() else "") + text)
    except OSError as error:
        raise TrainingFailed(f"{path} cannot be written: {error}") from error
