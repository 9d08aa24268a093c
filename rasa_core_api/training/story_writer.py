"""Writing a conversation as a story, in the text that story files hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    AllSlotsReset,
    ConversationPaused,
    ConversationResumed,
    Event,
    FollowupAction,
    Form,
    FormValidation,
    ReminderScheduled,
    Restarted,
    SlotSet,
    StoryExported,
    UserUtteranceReverted,
    UserUttered,
)

#: Lines that are on the happy path of a form; a story reader skips them.
FORM_PREFIX = "form: "

_NAMED_BY_TYPE = (
    AllSlotsReset,
    ConversationPaused,
    ConversationResumed,
    Restarted,
    UserUtteranceReverted,
    ActionReverted,
    StoryExported,
)


def story_of(name: str, events: Iterable[Event], e2e: bool = False) -> str:
    """The story of `events` (applied events, oldest first) under the heading `## name`, ending with a newline.

    User lines hold the intent and a JSON object of the entities; with `e2e` the intent and the message
    with its entities marked. While a form is active, lines wait until it is known whether the form took
    them: then they carry the prefix `form: `; after a rejection they do not. Verified line for line
    against 0.11.12 and 0.14.5.
    """
    writer = _Writer(e2e)
    for event in events:
        writer.add(event)
    return "".join([f"## {_one_line(name)}\n", *writer.finish()])


class _Writer:
    def __init__(self, e2e: bool) -> None:
        self._e2e = e2e
        self._lines: list[str] = []
        self._form: str | None = None
        self._validate = True
        self._rejected = False
        self._waiting: list[tuple[str, str, str]] = []  # head, prefix of the happy path, text

    def add(self, event: Event) -> None:
        if isinstance(event, UserUttered):
            self._put("* ", FORM_PREFIX, user_line(event, self._e2e))
        elif isinstance(event, Form):
            self._form = event.name
            if event.name is None:
                self._flush(happy=True)
            self._lines.append(_bot(f"form{json.dumps({'name': event.name})}"))
        elif isinstance(event, FormValidation):
            self._validate = event.validate
        elif isinstance(event, ActionExecutionRejected):
            if event.action_name == self._form:
                self._rejected = True
        elif isinstance(event, ActionExecuted):
            if event.action_name != ACTION_LISTEN:
                self._action(event.action_name)
                self._validate = True
        elif isinstance(event, SlotSet):
            self._put(_BOT, "", f"slot{json.dumps({event.key: event.value})}")
        else:
            text = bot_line(event)
            if text is not None:
                self._put(_BOT, FORM_PREFIX, text)

    def _put(self, head: str, prefix: str, text: str) -> None:
        if self._form is None:
            self._lines.append(f"{head}{text}\n")
        else:
            self._waiting.append((head, prefix, text))

    def _action(self, name: str) -> None:
        if self._form is None:
            self._lines.append(_bot(name))
            return
        if not self._rejected:
            self._flush(happy=True)
            self._lines.append(_bot(FORM_PREFIX + name))
        else:
            again = name == self._form and self._validate
            if again:
                self._lines.append(_bot(ACTION_LISTEN))
            self._flush(happy=again)
            self._lines.append(_bot(name))
        if name == self._form:
            self._rejected = False

    def _flush(self, happy: bool) -> None:
        self._lines += [f"{head}{prefix if happy else ''}{text}\n" for head, prefix, text in self._waiting]
        self._waiting = []

    def finish(self) -> list[str]:
        self._flush(happy=True)
        return self._lines


_BOT = "    - "


def _bot(text: str) -> str:
    return f"{_BOT}{text}\n"


def _one_line(text: str) -> str:
    return " ".join(text.splitlines()) if text else text


def user_line(event: UserUttered, e2e: bool = False) -> str:
    """What a story says after `* ` for a message; without an intent that is its text."""
    intent = event.intent_name
    if not intent:
        return _one_line(str(event.text))
    if e2e:
        return f"{intent}: {_one_line(marked_text(event.text or '', event.entities, every=True))}"
    values = {entity["entity"]: entity.get("value") for entity in event.entities}
    return f"{intent}{json.dumps(values) if values else ''}"


def marked_text(text: str, entities: Iterable[Mapping[str, JSON]], every: bool = False) -> str:
    """A message with entities as `[value](entity)` or `[words](entity:value)`.

    Entities without usable positions are left unmarked, and so are those that overlap an earlier one. With `every`
    these are marked one after another, their words repeated, as the releases wrote stories: all the entities of an
    intent message such as `/inform{"a": 1, "b": 2}` have the same place.
    """
    marked: list[str] = []
    done = 0
    for start, end, entity in sorted(_placed(text, entities), key=lambda item: item[0] if every else item[:2]):
        if start < done and not every:
            continue
        words, value = text[start:end], entity.get("value")
        label = entity["entity"] if words == value else f"{entity['entity']}:{value}"
        marked += [text[done:start], f"[{words}]({label})"]
        done = end
    return "".join([*marked, text[done:]])


def _placed(text: str, entities: Iterable[Mapping[str, JSON]]) -> Iterable[tuple[int, int, Mapping[str, JSON]]]:
    for entity in entities:
        start, end = entity.get("start"), entity.get("end")
        if type(start) is int and type(end) is int and 0 <= start < end <= len(text):
            yield start, end, entity


def bot_line(event: Event) -> str | None:
    """What a story says after `- ` for an event that is neither a message nor about forms; None for nothing."""
    if isinstance(event, ActionExecuted):
        return event.action_name
    if isinstance(event, SlotSet):
        return f"slot{json.dumps({event.key: event.value})}"
    if isinstance(event, FollowupAction):
        return f"followup{json.dumps({'name': event.action_name})}"
    if isinstance(event, ReminderScheduled):
        return f"reminder{json.dumps(event.fields())}"
    return event.type_name if isinstance(event, _NAMED_BY_TYPE) else None
