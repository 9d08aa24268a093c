"""Reading story files: the whole markdown language, with errors that name file, line and expectation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NoReturn, TypeVar

from attrs import define, field

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.events import EVENT_TYPES, ActionExecuted, Event, ReminderScheduled, SlotSet, UserUttered
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import InvalidEvent, InvalidTrainingData, RasaCoreError
from rasa_core_api.jsontext import decode
from rasa_core_api.releases import Release
from rasa_core_api.training.structures import (
    MAX_FORKS,
    BlockBuilder,
    Checkpoint,
    Notice,
    Place,
    StepIds,
    StoryFiles,
    TooManyForks,
    story_paths,
)

T = TypeVar("T")

#: Story files beyond this many bytes are refused.
MAX_FILE_SIZE = 64 * 1024 * 1024

#: Parse data of the text of a story line, as the intent syntax gives them.
Parse = Callable[[str], Mapping[str, JSON]]

_NEWLINE = re.compile(r"\r\n|\r|\n")  # what else `splitlines` splits at may stand in the value of an entity
_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')
_TEMPLATE = re.compile(r"`([^`]*)`")
_FORM_LINE = re.compile(r"[-*]\s+form: ")
_EVENT = re.compile(r"([^{]+)(\{.*)?")
_NAME_END = re.compile(r"[():]")
_FORM_EVENTS = frozenset({"form", "form_validation", "action_execution_rejected"})


def read_stories(
    paths: Iterable[Path],
    release: Release,
    parse: Parse,
    *,
    e2e: bool = False,
    exclusion_percentage: float = 0.0,
    random: Random | None = None,
) -> StoryFiles:
    """The steps of story files and folders.

    `parse` reads the text of a user line. `e2e` reads `* intent: message with [value](entity)`. With
    `exclusion_percentage` the steps are shuffled by `random` and that share of them, rounded, is left out.
    Raises `InvalidTrainingData` naming file, line and what was expected.
    """
    reader = StoryReader(release, parse, e2e=e2e)
    for path in paths:
        if not path.exists():
            raise InvalidTrainingData(f"there are no stories at {path}: no such file or folder", file=str(path))
        for file in story_paths(path):
            reader.read_file(file)
    files = reader.files
    if exclusion_percentage and exclusion_percentage != 100:
        (random or Random()).shuffle(files.steps)
        kept = len(files.steps) - round(exclusion_percentage / 100 * len(files.steps))
        del files.steps[kept:]
    return files


@define(eq=False)
class StoryReader:
    """Reads one story text after the other into `files`."""

    _release: Release
    _parse: Parse
    _e2e: bool = field(default=False, kw_only=True)
    files: StoryFiles = field(factory=StoryFiles, init=False)
    _ids: StepIds = field(factory=StepIds, init=False)
    _block: BlockBuilder | None = field(default=None, init=False)
    _events: EventReader = field(factory=lambda: EventReader(lambda: 0.0, lambda: "reminder"), init=False)
    _place: Place = field(factory=Place, init=False)

    def read_file(self, path: Path) -> None:
        try:
            if path.stat().st_size > MAX_FILE_SIZE:
                raise InvalidTrainingData(f"{path}: larger than {MAX_FILE_SIZE >> 20} MiB", file=str(path))
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise InvalidTrainingData(f"{path}: cannot be read: {error.strerror}", file=str(path)) from None
        except UnicodeDecodeError as error:
            line = path.read_bytes()[: error.start].count(b"\n") + 1
            raise InvalidTrainingData(
                f"{path}:{line}: not UTF-8 text; expected a story file", file=str(path), line=line
            ) from None
        self.read_text(text, str(path))

    def read_text(self, text: str, source: str) -> None:
        """Add the stories of `text`; `source` names it in errors."""
        for _ in self.reading(text, source):
            pass

    def reading(self, text: str, source: str) -> Iterator[None]:
        """The same, a line at a time, for callers that have other things to do meanwhile."""
        self._block = None
        for number, line in enumerate(_lines(text), 1):
            self._place = Place(source, number)
            self._read_line(line)
            yield
        self._finish_block()

    def _fail(self, expected: str) -> NoReturn:
        raise InvalidTrainingData(f"{self._place}: {expected}", file=self._place.file, line=self._place.line)

    def _notice(self, text: str) -> None:
        self.files.notices.append(Notice(self._place, text))

    def _finish_block(self) -> None:
        if self._block is not None:
            self.files.steps += self._block.finish()
            self._block = None

    def _read_line(self, raw: str) -> None:
        line = _without_comments(raw).strip()
        variable = _TEMPLATE.search(line)
        if variable:
            self._fail(f"unknown template variable `{variable[1]}`; write the text itself")
        if not line:
            return
        first = line[0]
        if first == "#":
            self._finish_block()
            self._block = BlockBuilder(line.strip("# "), self._place, self._ids)
            self.files.blocks += 1
        elif first not in ">-*":
            self._notice(f"skipped {line[:60]!r}; expected '#', '>', '*' or '-' at the beginning")
        elif self._release.has_forms and _FORM_LINE.match(line):
            return
        elif self._block is None:
            self._fail(f"expected '## story name' before {line[:60]!r}")
        elif first == ">":
            self._checkpoint(self._block, line[1:].strip())
        elif first == "-":
            self._event(self._block, line[1:].strip())
        else:
            self._message(self._block, line[1:].strip())

    def _named(self, text: str, what: str) -> tuple[str, dict[str, JSON]]:
        """Name and JSON object of `name{...}`."""
        match = _EVENT.fullmatch(text)
        if match is None:
            self._fail(f"expected {what}, found {text[:60]!r}")
        parameters: Any = {}
        if match[2]:
            try:
                parameters = decode(match[2].encode("utf-8"))
            except ValueError as error:
                self._fail(f"expected {what} with a JSON object, found {match[2][:60]!r} ({error})")
        if not isinstance(parameters, dict):
            self._fail(f"expected {what} with a JSON object, found {match[2][:60]!r}")
        return match[1].strip(), parameters

    def _checkpoint(self, block: BlockBuilder, text: str) -> None:
        name, conditions = self._named(text, 'a checkpoint such as > name or > name{"slot": "value"}')
        if not self._forked(lambda: block.add_checkpoint(Checkpoint(name, conditions))):
            self._notice(f"the conditions of the ending checkpoint {name!r} are ignored; put them where a story starts")

    def _event(self, block: BlockBuilder, text: str) -> None:
        if not text or text[0] == "{":
            self._notice("skipped a line without a name; expected an action or an event after '-'")
            return
        name, parameters = self._named(text, "an action or an event")
        block.continue_story()  # an `action_listen` that is left out does so too
        for event in self._events_of(name, parameters):
            block.add_event(event, self._place)

    def _events_of(self, name: str, parameters: dict[str, JSON]) -> list[Event]:
        if name == SlotSet.type_name:
            if not parameters:
                self._fail('expected slot{"name": value}, found a slot without parameters')
            return [SlotSet(key=key, value=value, timestamp=0.0) for key, value in parameters.items()]
        parameters.setdefault("name", name)
        known = name in EVENT_TYPES and name != ActionExecuted.type_name
        if name == ReminderScheduled.type_name and parameters.get("action") is None:
            parameters["action"] = parameters["name"]  # the releases read a reminder without an action too
        if not known or (name in _FORM_EVENTS and not self._release.has_forms):
            action = parameters["name"]
            if not isinstance(action, str):
                self._fail(f"expected a text as the name of an action, found {action!r}")
            if action == ACTION_LISTEN and not self._release.keeps_listen_lines:
                return []
            return [ActionExecuted(action_name=action, timestamp=0.0)]
        try:
            event = self._events.read({**parameters, "event": name, "timestamp": None})
        except InvalidEvent as error:
            self._fail(str(error))
        return [] if event is None else [event]

    def _message(self, block: BlockBuilder, text: str) -> None:
        parts = _alternatives(text)
        if len(parts) > MAX_FORKS:
            self._too_many()
        alternatives = [self._one_message(part.strip()) for part in parts]
        self._forked(lambda: block.add_messages(alternatives, self._place))

    def _forked(self, add: Callable[[], T]) -> T:
        try:
            return add()
        except TooManyForks:
            self._too_many()

    def _too_many(self) -> NoReturn:
        self._fail(
            f"this line forks the story into more than {MAX_FORKS} ways; each further '>' in a row doubles them, "
            "and OR multiplies them by its alternatives: write fewer"
        )

    def _one_message(self, text: str) -> UserUttered:
        if self._e2e:
            return self._e2e_message(text)
        if "{" in text:
            self._named(text.lstrip("/"), "an intent")
        try:
            parse_data = self._parse(text)
        except (ValueError, RasaCoreError) as error:
            self._fail(f"expected an intent such as greet or greet{{...}}, found {text[:60]!r} ({error})")
        intent = (parse_data.get("intent") or {}).get("name")
        if not intent:
            self._fail(f"expected an intent such as greet or greet{{...}}, found {text[:60]!r}")
        return UserUttered(text=text, parse_data=parse_data, timestamp=0.0)

    def _e2e_message(self, text: str) -> UserUttered:
        intent, colon, message = text.partition(":")
        intent = intent.strip().lstrip("/")
        if not colon or not intent or "{" in intent:
            self._fail(f"expected '* intent: message with [value](entity)', found {text[:60]!r}")
        message, entities = read_marked(message.strip())
        return UserUttered(
            text=message,
            parse_data={
                "text": message,
                "intent": {"name": intent, "confidence": 1.0},
                "entities": entities,
                "true_intent": intent,
                "true_entities": entities,
            },
            timestamp=0.0,
        )


def _lines(text: str) -> Iterator[str]:
    done = 0
    for end in _NEWLINE.finditer(text):
        yield text[done : end.start()]
        done = end.end()
    yield text[done:]


def _without_comments(line: str) -> str:
    """The line without `<!-- ... -->`; what is opened and never closed is no comment."""
    kept, done = [], 0
    while (begin := line.find("<!--", done)) >= 0 and (end := line.find("-->", begin + 4)) >= 0:
        kept.append(line[done:begin])
        done = end + 3
    return "".join([*kept, line[done:]])


def _alternatives(text: str) -> list[str]:
    """The parts between ` OR `, which separates nothing inside the quotes of a JSON object."""
    alternatives: list[list[str]] = []
    braced = quoted = False
    for part in text.split(" OR "):
        if quoted:
            alternatives[-1].append(part)
        else:
            alternatives.append([part])
            braced = False
        values = part
        if not braced:
            _, brace, values = part.partition("{")
            braced = bool(brace)
        if len(_QUOTE.findall(values)) % 2:
            quoted = not quoted
    return [" OR ".join(parts) for parts in alternatives]


def read_marked(text: str) -> tuple[str, list[dict[str, JSON]]]:
    """The plain message and the entities of a text with marks `[words](entity)` or `[words](entity:value)`."""
    plain: list[str] = []
    entities: list[dict[str, JSON]] = []
    length = done = 0
    for begin, after, words, entity, value in _marks(text):
        before = text[done:begin]
        start = length + len(before)
        length = start + len(words)
        plain += [before, words]
        done = after
        entities.append({"entity": entity, "value": words if value is None else value, "start": start, "end": length})
    return "".join([*plain, text[done:]]), entities


def _marks(text: str) -> Iterator[tuple[int, int, str, str, str | None]]:
    """Begin, end, words, entity and value of each mark.

    The marks that the expression `\\[([^\\]]+)\\]\\(([^():]*?)(?::([^)]*))?\\)` finds, in linear time: on half marks it
    needs the square of their number.
    """
    at = 0
    while (begin := text.find("[", at)) >= 0 and (close := text.find("]", begin)) >= 0:
        at = close + 1  # what begins between the two ends there too
        if close == begin + 1 or text[at : at + 1] != "(":
            continue
        name_end = _NAME_END.search(text, at + 1)
        if name_end is None:
            return  # no bracket is closed any more
        if name_end[0] == "(":
            continue
        end = text.find(")", name_end.start())
        if end < 0:
            return
        value = text[name_end.end() : end] if name_end[0] == ":" else None
        yield begin, end + 1, text[begin + 1 : close], text[at + 1 : name_end.start()], value
        at = end + 1
