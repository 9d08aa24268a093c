"""How well a model predicts stories: per action, per story, and end to end with the NLU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted, ActionExecutionRejected, Event, UserUttered
from rasa_core_api.exceptions import EvaluationFailed
from rasa_core_api.policies.ensemble import Choice, Ensemble
from rasa_core_api.trackers import Tracker
from rasa_core_api.training.generator import MAX_DIALOGUES, Settings, generate
from rasa_core_api.training.story_writer import marked_text, story_of
from rasa_core_api.training.structures import StoryStep

#: Parse data of a message, by whatever understands messages.
ParseMessage = Callable[[str], Awaitable[Mapping[str, JSON]]]
#: Lets others work; called between two predictions.
Pause = Callable[[], Awaitable[None]]
#: Runs a function with its arguments elsewhere.
Apart = Callable[..., Awaitable[Any]]

ALL_PASSED = "<!-- All stories passed -->"
_NONE = "None"


@frozen
class Prediction:
    """What was predicted where the story has `action`."""

    action: str
    predicted: str
    policy: str | None
    confidence: float

    def as_dict(self) -> dict[str, JSON]:
        return {
            "action": self.action, "predicted": self.predicted, "policy": self.policy, "confidence": self.confidence,
        }  # fmt: skip


@frozen
class Row:
    """Precision, recall and F1 of one label; `support` is how often the stories have it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@define
class Evaluation:
    """The result for a set of stories.

    `pairs` are what the stories have and what was predicted: of actions, and end to end of intents and
    entities too.
    """

    e2e: bool
    stories: int = 0
    predictions: list[Prediction] = field(factory=list)
    pairs: list[tuple[str, str]] = field(factory=list)
    failed: list[str] = field(factory=list)

    @property
    def correct_stories(self) -> int:
        return self.stories - len(self.failed)

    @property
    def accuracy(self) -> float:
        """The share of pairs that agree; 0 without any."""
        return sum(wanted == found for wanted, found in self.pairs) / max(1, len(self.pairs))

    def rows(self) -> list[Row]:
        """One row a label, sorted by name."""
        support = Counter(wanted for wanted, _ in self.pairs)
        predicted = Counter(found for _, found in self.pairs)
        right = Counter(wanted for wanted, found in self.pairs if wanted == found)
        rows = []
        for label in sorted(support.keys() | predicted.keys()):
            precision = right[label] / predicted[label] if predicted[label] else 0.0
            recall = right[label] / support[label] if support[label] else 0.0
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            rows.append(Row(label, precision, recall, f1, support[label]))
        return rows

    def weighted(self, of: Callable[[Row], float]) -> float:
        """The mean over the labels, weighted by their support."""
        rows = self.rows()
        return sum(of(row) * row.support for row in rows) / max(1, sum(row.support for row in rows))

    def report(self) -> str:
        """The rows as a table of text."""
        rows = self.rows()
        width = max([len("avg / total"), *(len(row.label) for row in rows)])
        lines = [f"{'':>{width}}  precision    recall  f1-score   support", ""]
        mean = Row(
            "avg / total",
            self.weighted(lambda r: r.precision),
            self.weighted(lambda r: r.recall),
            self.weighted(lambda r: r.f1),
            len(self.pairs),
        )
        for row in [*rows, mean]:
            if row is mean:
                lines.append("")
            numbers = f"{row.precision:>9.2f} {row.recall:>9.2f} {row.f1:>9.2f} {row.support:>9}"
            lines.append(f"{row.label:>{width}}  {numbers}")
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, JSON]:
        """What `POST /evaluate` answers, with the members of 0.12 to 0.14."""
        memorized = sum("MemoizationPolicy" in (prediction.policy or "") for prediction in self.predictions)
        return {
            "report": self.report(),
            "precision": self.weighted(lambda row: row.precision),
            "f1": self.weighted(lambda row: row.f1),
            "accuracy": self.accuracy,
            "actions": [prediction.as_dict() for prediction in self.predictions],
            "in_training_data_fraction": memorized / max(1, len(self.predictions)),
            "is_end_to_end_evaluation": self.e2e,
        }

    def failed_stories(self) -> str:
        """The failed stories as a story file with comments."""
        return "\n\n".join(story.rstrip("\n") for story in self.failed) + "\n" if self.failed else ALL_PASSED + "\n"


async def evaluate_stories(
    steps: Sequence[StoryStep],
    domain: Domain,
    ensemble: Ensemble,
    *,
    parse: ParseMessage | None = None,
    max_events: int | None = None,
    max_dialogues: int = MAX_DIALOGUES,
    fail_on_errors: bool = False,
    pause: Pause | None = None,
    apart: Apart | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Evaluation:
    """Predict every action of the stories, each time from the correct history.

    `parse` (end to end) understands the messages of stories that were read so; the story goes on with what it
    understood. `apart` runs what cannot pause, the joining of the stories. `max_events` is what the releases made of
    `--max_stories`: a story counts with its last events. Raises `EvaluationFailed` at the first wrong prediction with
    `fail_on_errors`.
    """
    settings = Settings(
        augmentation_factor=0,
        use_story_concatenation=False,
        event_limit=max_events,
        max_dialogues=max_dialogues,
    )
    if apart is None:
        dialogues = generate(steps, domain, settings).dialogues
    else:
        dialogues = (await apart(generate, steps, domain, settings)).dialogues
    evaluation = Evaluation(parse is not None)
    for number, dialogue in enumerate(dialogues):
        if progress is not None:
            progress(number / len(dialogues), f"story {number + 1} of {len(dialogues)}")
        run = _Run(domain, ensemble, evaluation, parse, fail_on_errors, pause, dialogue.name)
        await run.play(dialogue.events(max_events))
    return evaluation


@define
class _Run:
    domain: Domain
    ensemble: Ensemble
    evaluation: Evaluation
    parse: ParseMessage | None
    fail_on_errors: bool
    pause: Pause | None
    name: str
    _tracker: Tracker = field(init=False)
    _shown: list[Event] = field(factory=list, init=False)
    _wrong: bool = field(default=False, init=False)

    async def play(self, events: Sequence[Event]) -> None:
        self._tracker = Tracker("default", self.domain)
        for position, event in enumerate(events):
            if isinstance(event, ActionExecuted):
                if position and not event.unpredictable:
                    await self._predict(event)
                else:
                    self._shown.append(event)
                self._tracker.update(event)
            elif isinstance(event, UserUttered) and self.parse is not None:
                await self._understand(event)
            else:
                self._tracker.update(event)
                self._shown.append(event)
        self.evaluation.stories += 1
        if self._wrong:
            self.evaluation.failed.append(story_of(self.name, self._shown, self.parse is not None))

    async def _predict(self, event: ActionExecuted) -> None:
        if self.pause is not None:
            await self.pause()
        choice = self._choose(event.action_name)
        predicted = self.domain.action_names[choice.index]
        self.evaluation.predictions.append(Prediction(event.action_name, predicted, choice.policy, choice.confidence))
        self.evaluation.pairs.append((event.action_name, predicted))
        if predicted == event.action_name:
            self._shown.append(event)
            return
        text = f"{event.action_name}   <!-- predicted: {predicted} -->"
        self._shown.append(event.changed(action_name=text))
        self._fail(f"after {_last_words(self._shown)} the model predicts {predicted!r} and not {event.action_name!r}")

    def _choose(self, wanted: str) -> Choice:
        """The ensemble's choice; a form that the story leaves is asked again as if it had been rejected."""
        choice = self.ensemble.choose(self._tracker)
        predicted = self.domain.action_names[choice.index]
        form = next((policy for policy in self.ensemble.policies if policy.name == "FormPolicy"), None)
        if form is None or predicted == wanted or not (choice.policy or "").endswith("_FormPolicy"):
            return choice
        rejection = ActionExecutionRejected(action_name=predicted, timestamp=0.0)
        rejected, known = (self._copy() for _ in range(2))
        for tracker in (rejected, known):
            tracker.update(rejection)
        if form.predict(known, self.domain).best()[1] > 0:
            return choice  # no story leaves the form here
        self._tracker = rejected
        return self.ensemble.choose(rejected)

    def _copy(self) -> Tracker:
        tracker = Tracker("default", self.domain)
        tracker.extend(list(self._tracker.events))
        return tracker

    async def _understand(self, event: UserUttered) -> None:
        assert self.parse is not None
        parsed = dict(await self.parse(event.text or ""))
        intent = (parsed.get("intent") or {}).get("name")
        wanted = event.parse_data.get("true_intent")
        true_entities = event.parse_data.get("true_entities") or []
        entities = parsed.get("entities") or []
        pairs = [(str(wanted), str(intent or _NONE)), *_entity_pairs(true_entities, entities)]
        self.evaluation.pairs += pairs
        heard = UserUttered(text=event.text, parse_data={**parsed, "text": event.text}, timestamp=0.0)
        self._tracker.update(heard)
        if all(right == found for right, found in pairs):
            self._shown.append(event)
            return
        comment = f"   <!-- predicted: {intent}: {marked_text(event.text or '', entities, every=True)} -->"
        self._shown.append(event.changed(text=(event.text or "") + comment))
        self._fail(f"the NLU understands {wanted!r} as {intent!r}")

    def _fail(self, message: str) -> None:
        self._wrong = True
        if self.fail_on_errors:
            raise EvaluationFailed(f"story {self.name!r}: {message}", story=self.name)


def _last_words(events: Sequence[Event]) -> str:
    for event in reversed(events[:-1]):
        if isinstance(event, ActionExecuted):
            return repr(event.action_name)
        if isinstance(event, UserUttered):
            return f"the message {event.intent_name!r}"
    return "the beginning"


def _entity_pairs(wanted: Iterable[Mapping[str, JSON]], found: Iterable[Mapping[str, JSON]]) -> list[tuple[str, str]]:
    """Labels of the entities of a message, matched by place and value; one that is missing or too many is `None`."""

    def key(entity: Mapping[str, JSON]) -> tuple[JSON, ...]:
        return entity.get("start"), entity.get("end"), str(entity.get("value"))

    left = {key(entity): str(entity.get("entity")) for entity in found}
    pairs = [(str(entity.get("entity")), left.pop(key(entity), _NONE)) for entity in wanted]
    return [*pairs, *((_NONE, label) for label in left.values())]
