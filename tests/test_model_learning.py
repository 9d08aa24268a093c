"""A served model learns in a process of its own and is swapped for the one that comes of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from rasa_core_api.exceptions import InvalidParameter, ModelBusy, TrainingFailed
from rasa_core_api.lessons import MAX_LESSONS
from rasa_core_api.model_learning import ModelLearning
from rasa_core_api.models.installation import Installer
from rasa_core_api.models.loader import load_generation
from rasa_core_api.models.workshop import Workshop
from rasa_core_api.train import main
from rasa_core_api.training.finetuning import learn
from rasa_core_api.training.learning_apart import Lesson, Task, learn_apart
from tests.fakes import Bot
from tests.samples import domain

DOMAIN = "intents: [greet, bye]\nactions: [utter_greet, utter_bye]\ntemplates: {utter_greet: [hi], utter_bye: [bye]}\n"
STORIES = "## hello\n* greet\n  - utter_greet\n"
LISTEN = {"event": "action", "name": "action_listen"}
HEARD = {"event": "user", "text": "/greet", "parse_data": {"intent": {"name": "greet", "confidence": 1.0}}}
CORRECTED = [LISTEN, HEARD, {"event": "action", "name": "utter_bye"}, LISTEN]


class Learning:
    """Learns in place, or waits at a gate."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.gate: Deferred[None] | None = None

    async def __call__(self, task: Task) -> dict[str, Any]:
        self.tasks.append(task)
        if self.gate is not None:
            await self.gate
        return learn(task)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, text in (
        ("domain.yml", DOMAIN),
        ("stories.md", STORIES),
        ("policies.yml", "policies: [{name: MemoizationPolicy}, {name: MappingPolicy}]"),
    ):
        (tmp_path / name).write_text(text)
    files = {"-d": "domain.yml", "-s": "stories.md", "-c": "policies.yml", "-o": "model"}
    options = [word for flag, name in files.items() for word in (flag, str(tmp_path / name))]
    assert main([*options, "--augmentation", "0", "--quiet", "--no_check"]) == 0
    return tmp_path / "model"


@pytest.fixture
def learning() -> Learning:
    return Learning()


@pytest.fixture
def bot(model: Path, learning: Learning, tmp_path: Path) -> Iterator[Bot]:
    async def inline(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return function(*args, **options)

    async def refuse(_: Any) -> None:
        raise AssertionError

    shop = Workshop.open(tmp_path / "shop")
    installer = Installer(lambda: shop, refuse, inline, load_interpreter=None, new_fingerprint=str)  # type: ignore[arg-type]
    bot = Bot(domain("0.11"), {})
    bot.agent.learner = ModelLearning(installer, bot.agent.slices, learning)
    bot.agent.install(evolve(load_generation(model), directory=model))
    yield bot
    shop.close()
    assert os.listdir(tmp_path / "shop") == []


def test_learns_and_serves(bot: Bot) -> None:
    """After a correction the bot does the same; the fingerprint changes and the conversation goes on."""
    assert bot.say("/greet") == [{"recipient_id": "u", "text": "hi"}]
    before = bot.agent.fingerprint
    bot.wait(bot.agent.finetune(CORRECTED, 30, 5))
    assert bot.agent.fingerprint != before
    assert bot.say("/greet", "v") == [{"recipient_id": "v", "text": "bye"}]
    assert bot.kinds().count("user") == 1


def test_learns_on_and_cleans_up(bot: Bot, learning: Learning, tmp_path: Path) -> None:
    """A lesson builds on the last one; of all of them one directory stays."""
    bot.wait(bot.agent.finetune(CORRECTED, 30, 5))
    other = [LISTEN, {**HEARD, "parse_data": {"intent": {"name": "bye"}}}, {"event": "action", "name": "utter_greet"}]
    bot.wait(bot.agent.finetune(other, 2, 3))
    assert learning.tasks[1].lesson.directory == learning.tasks[0].lesson.into
    assert (learning.tasks[1].lesson.epochs, learning.tasks[1].lesson.batch_size) == (2, 3)
    assert bot.say("/greet")[0]["text"] == "bye" and bot.say("/bye", "w")[0]["text"] == "hi"
    assert [path.name for path in tmp_path.glob("shop/*/*learnt")] == [learning.tasks[1].lesson.into.name]


def test_answers_meanwhile(bot: Bot, learning: Learning) -> None:
    """Turns are answered by the old model while another learns; a lesson that waits learns on the new one."""
    learning.gate = Deferred()
    first, second = (Deferred.fromCoroutine(bot.agent.finetune(CORRECTED, 30, 5)) for _ in range(2))
    assert bot.say("/greet")[0]["text"] == "hi"
    assert not first.called and len(learning.tasks) == 1
    learning.gate.callback(None)
    bot.say("/greet", "v")
    assert first.called and second.called and len(learning.tasks) == 2


def test_crowds(bot: Bot, learning: Learning) -> None:
    """Only so many lessons wait."""
    learning.gate = Deferred()
    waiting = [Deferred.fromCoroutine(bot.agent.finetune(CORRECTED, 30, 5)) for _ in range(MAX_LESSONS + 1)]
    with pytest.raises(ModelBusy):
        bot.wait(bot.agent.finetune(CORRECTED, 30, 5))
    learning.gate.callback(None)
    bot.say("/greet")
    assert all(lesson.called for lesson in waiting)


def test_replaced_meanwhile(bot: Bot, learning: Learning, model: Path) -> None:
    """A model that was replaced while its successor learned stays replaced, and the client is told."""
    learning.gate = Deferred()
    lesson = Deferred.fromCoroutine(bot.agent.finetune(CORRECTED, 30, 5))
    bot.say("/greet")
    bot.agent.install(evolve(load_generation(model, fingerprint="newer"), directory=None))
    learning.gate.callback(None)
    failures: list[Any] = []
    lesson.addErrback(failures.append)
    bot.say("/greet")
    assert "replaced by another" in str(failures[0].value)
    assert bot.agent.fingerprint == "newer"
    with pytest.raises(TrainingFailed, match="loaded, not trained here"):
        bot.wait(bot.agent.finetune(CORRECTED, 30, 5))


def test_refused_lessons_change_nothing(bot: Bot, model: Path) -> None:
    """What cannot be learnt leaves the model in service."""
    before = bot.agent.fingerprint
    with pytest.raises(InvalidParameter, match="no action that follows"):
        bot.wait(bot.agent.finetune([LISTEN], 30, 5))
    (model / "more").write_text("x")
    with pytest.raises(TrainingFailed, match="Server failure. Error: the model's files have changed"):
        bot.wait(bot.agent.finetune(CORRECTED, 30, 5))
    assert bot.agent.fingerprint == before and bot.say("/greet")[0]["text"] == "hi"


class FakeReactor(Clock):
    """Starts no process; a test says how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.signals: list[str] = []

    def spawnProcess(self, protocol: Any, *args: Any, **options: Any) -> FakeReactor:
        self.command, self.protocol = args[1], protocol
        protocol.makeConnection(self)
        return self

    def write(self, data: bytes) -> None:
        self.sent += data

    def closeStdin(self) -> None:
        pass

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)
        self.protocol.processEnded(Failure(ProcessTerminated(signal=9)))


TASK = Task(Lesson(directory=Path("/m"), fingerprint="f", into=Path("/n")), Path("/e"), ("bots",))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"learnt": {"p": 1}}, {"p": 1}),
        ({"error": "no", "invalid": True}, InvalidParameter),
        ({"error": "no"}, TrainingFailed),
    ],
)
def test_process_answers(answer: dict[str, Any], expected: Any) -> None:
    """The process is told the task and its answer is what comes of it."""
    reactor, found = FakeReactor(), list[Any]()
    Deferred.fromCoroutine(learn_apart(TASK, reactor)).addBoth(found.append)
    assert reactor.command == [sys.executable, "-m", "rasa_core_api.training.finetuning"]
    assert Task.from_json(json.loads(reactor.sent)) == TASK
    reactor.protocol.outReceived(json.dumps(answer).encode())
    reactor.protocol.processEnded(Failure(ProcessDone(0)))
    assert found == [expected] if isinstance(expected, dict) else found[0].check(expected)
    assert reactor.getDelayedCalls() == []


def test_process_that_crashes_or_lingers() -> None:
    """A crash is a failed training; a process that takes too long is ended."""
    reactor, found = FakeReactor(), list[Any]()
    Deferred.fromCoroutine(learn_apart(TASK, reactor)).addBoth(found.append)
    reactor.protocol.errReceived(b"last words")
    reactor.protocol.processEnded(Failure(ProcessTerminated(1)))
    Deferred.fromCoroutine(learn_apart(TASK, reactor, 10.0)).addBoth(found.append)
    reactor.advance(10.0)
    assert [failure.check(TrainingFailed) for failure in found] == [TrainingFailed] * 2
    assert "more than 10 s" in str(found[1].value) and reactor.signals == ["KILL"]
