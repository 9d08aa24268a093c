"""How well a model understands: intents and entities of a data set against what it finds.

An entity counts as found when its name and both its ends agree; values and confidences are not compared.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field, frozen

from rasa_core_api.constants import JSON
from rasa_core_api.nlu.config import PipelineConfig
from rasa_core_api.nlu.data import Example, TrainingData
from rasa_core_api.nlu.training import train_model

BINS = 20  # of the histogram of confidences
THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9)
NO_INTENT = "(none)"  # stands for answers without an intent

Parse = Callable[[str], Mapping[str, JSON]]
Span = tuple[int, int, str]  # start, end, entity


@frozen
class Score:
    """Precision, recall and F1 of one class, from counts."""

    right: int
    found: int
    support: int  # how many there are in the data

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.support if self.support else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.found + self.support) if self.found + self.support else 0.0

    def as_json(self) -> dict[str, JSON]:
        """The figures, rounded to four digits."""
        figures = {"precision": self.precision, "recall": self.recall, "f1-score": self.f1}
        return {**{name: round(value, 4) for name, value in figures.items()}, "support": self.support}


@frozen
class Answer:
    """What a model said about one example."""

    text: str
    expected: str | None  # None: the example has no intent
    found: str
    confidence: float
    expected_entities: tuple[Span, ...]
    found_entities: tuple[Span, ...]

    @property
    def right(self) -> bool:
        return self.expected == self.found

    def as_json(self) -> dict[str, JSON]:
        """The answer as the files of errors and successes have it."""
        prediction = {"name": self.found, "confidence": round(self.confidence, 6)}
        result: dict[str, JSON] = {"text": self.text, "intent": self.expected, "intent_prediction": prediction}
        if self.expected_entities or self.found_entities:
            result["entities"] = [_span_json(span) for span in self.expected_entities]
            result["predicted_entities"] = [_span_json(span) for span in self.found_entities]
        return result


def _span_json(span: Span) -> dict[str, JSON]:
    return {"start": span[0], "end": span[1], "entity": span[2]}


@define
class Evaluation:
    """All answers, and the figures that follow from them."""

    answers: list[Answer] = field(factory=list)
    title: str = ""

    def judged(self) -> list[Answer]:
        """Answers to examples that have an intent."""
        return [answer for answer in self.answers if answer.expected is not None]

    def accuracy(self) -> float:
        """The share of right intents."""
        judged = self.judged()
        return sum(answer.right for answer in judged) / len(judged) if judged else 0.0

    def intents(self) -> dict[str, Score]:
        """The scores of each intent that was expected or found."""
        judged = self.judged()
        return _scores(
            Counter(str(answer.expected) for answer in judged if answer.right),
            Counter(answer.found for answer in judged),
            Counter(str(answer.expected) for answer in judged),
        )

    def entities(self) -> dict[str, Score]:
        """The scores of each entity that was expected or found."""
        right: Counter[str] = Counter()
        for answer in self.answers:
            right.update(span[2] for span in set(answer.expected_entities) & set(answer.found_entities))
        return _scores(
            right,
            Counter(span[2] for answer in self.answers for span in answer.found_entities),
            Counter(span[2] for answer in self.answers for span in answer.expected_entities),
        )

    def confusion(self) -> tuple[list[str], dict[tuple[str, str], int]]:
        """Names in order, and how often each (expected, found) occurred."""
        counts = Counter((str(answer.expected), answer.found) for answer in self.judged())
        return sorted({name for pair in counts for name in pair}), dict(counts)

    def histogram(self) -> list[tuple[float, int, int]]:
        """For each bin of confidence its lower end, and how many right and wrong intents fell into it."""
        bins = [[0, 0] for _ in range(BINS)]
        for answer in self.judged():
            bins[min(int(answer.confidence * BINS), BINS - 1)][not answer.right] += 1
        return [(number / BINS, right, wrong) for number, (right, wrong) in enumerate(bins)]

    def coverage(self) -> list[tuple[float, float, float]]:
        """For each threshold the share of right, and of wrong, intents with at least that confidence."""
        right = [answer.confidence for answer in self.judged() if answer.right]
        wrong = [answer.confidence for answer in self.judged() if not answer.right]
        return [(threshold, _share(right, threshold), _share(wrong, threshold)) for threshold in THRESHOLDS]

    def as_json(self) -> dict[str, JSON]:
        """All figures, with confusions and histogram, for programs."""
        intents, entities = self.intents(), self.entities()
        names, counts = self.confusion()
        return {
            "title": self.title,
            "examples": len(self.answers),
            "intent_evaluation": {
                "accuracy": round(self.accuracy(), 4),
                **averages(intents),
                "report": {name: score.as_json() for name, score in intents.items()},
                "confusion": {
                    name: {other: counts[name, other] for other in names if (name, other) in counts} for name in names
                },
                "histogram": [{"from": low, "right": right, "wrong": wrong} for low, right, wrong in self.histogram()],
                "coverage": [
                    {"threshold": threshold, "right": round(right, 4), "wrong": round(wrong, 4)}
                    for threshold, right, wrong in self.coverage()
                ],
            },
            "entity_evaluation": {
                "micro": total(entities).as_json(),
                **averages(entities),
                "report": {name: score.as_json() for name, score in entities.items()},
            },
            "errors": [answer.as_json() for answer in self.answers if is_error(answer)],
        }


def _share(confidences: Sequence[float], threshold: float) -> float:
    return sum(confidence >= threshold for confidence in confidences) / max(1, len(confidences))


def is_error(answer: Answer) -> bool:
    """Whether the intent or an entity is not as expected."""
    if answer.expected is not None and not answer.right:
        return True
    return set(answer.expected_entities) != set(answer.found_entities)


def _scores(right: Counter[str], found: Counter[str], support: Counter[str]) -> dict[str, Score]:
    return {name: Score(right[name], found[name], support[name]) for name in sorted({*found, *support})}


def total(scores: Mapping[str, Score]) -> Score:
    """All classes in one, every occurrence counting alike."""
    values = scores.values()
    return Score(*(sum(getattr(score, name) for score in values) for name in ("right", "found", "support")))


def averages(scores: Mapping[str, Score]) -> dict[str, float]:
    """F1 averaged over classes that occur in the data (`macro_f1`), and weighted by how often they do."""
    known = [score for score in scores.values() if score.support]
    support = sum(score.support for score in known)
    return {
        "macro_f1": round(sum(score.f1 for score in known) / len(known), 4) if known else 0.0,
        "weighted_f1": round(sum(score.f1 * score.support for score in known) / support, 4) if support else 0.0,
    }


def answers_of(parse: Parse, examples: Iterable[Example]) -> list[Answer]:
    """What a model says about examples."""
    return [_answer(example, parse(example.text)) for example in examples]


def _answer(example: Example, parse: Mapping[str, JSON]) -> Answer:
    intent = parse.get("intent") or {}
    return Answer(
        example.text,
        example.intent or None,
        str(intent.get("name") or NO_INTENT),
        float(intent.get("confidence") or 0.0),
        tuple(_span(entity) for entity in example.entities),
        tuple(_span(entity) for entity in parse.get("entities", ())),
    )


def _span(entity: Mapping[str, JSON]) -> Span:
    return (int(entity.get("start", -1)), int(entity.get("end", -1)), str(entity.get("entity")))


def stratified(examples: Sequence[Example], folds: int, seed: int = 0) -> list[int]:
    """The fold of each example, such that every intent is spread evenly over the folds."""
    chance = random.Random(seed)
    groups: dict[str | None, list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(example.intent, []).append(number)
    result = [0] * len(examples)
    turn = 0
    for name in sorted(groups, key=lambda name: (name is None, name or "")):
        numbers = groups[name]
        chance.shuffle(numbers)
        for number in numbers:
            result[number] = turn % folds
            turn += 1
    return result


def cross_validate(
    config: PipelineConfig,
    data: TrainingData,
    folds: int,
    *,
    seed: int = 0,
    fold_done: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Train on all folds but one and ask about that one, for each fold.

    Lookup tables in files have to be read before (`with_lookups_read`). `fold_done` is told the folds done, and in all.
    """
    where = stratified(data.examples, folds, seed)
    found: dict[int, Answer] = {}
    for fold in range(folds):
        inside = [number for number, other in enumerate(where) if other == fold]
        rest = [example for example, other in zip(data.examples, where, strict=True) if other != fold]
        part = data.with_examples(rest)
        model, _ = train_model(config, part)
        answers = answers_of(model.parse, [data.examples[number] for number in inside])
        found.update(zip(inside, answers, strict=True))
        if fold_done is not None:
            fold_done(fold + 1, folds)
    return Evaluation([found[number] for number in sorted(found)])
