"""Tests of the parent of several workers: what it does when they start, die, take models and end."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.settings import RunSettings
from rasa_core_api.supervisor import (
    ATTEMPTS,
    GOOD,
    INSTALL_LIMIT,
    PAUSES,
    READY_LIMIT,
    STOP_LIMIT,
    Supervisor,
    _hold,
    _keep_young,
    _remove_left_over,
    check,
)
from tests.conftest import LoggedFailures


@define(eq=False)
class FakeChild:
    number: int
    owner: str
    predecessor: str
    pid: int
    told: list[dict[str, Any]] = field(factory=list)
    signals: list[int] = field(factory=list)
    says: list[dict[str, Any]] = field(factory=list)
    status: int | None = None

    def say(self, **message: Any) -> None:
        self.told.append(message)

    def heard(self) -> list[dict[str, Any]]:
        said, self.says = self.says, []
        return said

    def ended(self) -> int | None:
        return self.status

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def close(self) -> None:
        self.told.append({"closed": True})


class House:
    """A supervisor with two workers that do what they are told."""

    def __init__(self, count: int = 2) -> None:
        self.children: list[FakeChild] = []
        self.ups = 0
        self.during_start: Callable[[], None] = lambda: None
        self.now = 0.0
        owners = iter(range(1000))
        self.supervisor = Supervisor(count, self._start, self._up, lambda: f"owner-{next(owners)}")

    def _start(self, number: int, owner: str, predecessor: str) -> FakeChild:
        self.during_start()
        child = FakeChild(number, owner, predecessor, 100 + len(self.children))
        self.children.append(child)
        return child

    def _up(self) -> None:
        self.ups += 1

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.supervisor.step(self.now)

    def serve(self, *children: FakeChild) -> None:
        for child in children:
            child.says += [{"ready": True}]
            self.step()
            child.says += [{"listening": True}]
        self.step()


@pytest.fixture
def house() -> House:
    house = House()
    house.step()
    house.serve(*house.children)
    return house


def test_up_once_all_serve() -> None:
    """A worker may listen when it is ready; the server is up when all listen."""
    house = House()
    house.step()
    one, two = house.children
    assert [(child.number, child.owner, child.predecessor) for child in house.children] == [
        (1, "owner-0", ""),
        (2, "owner-1", ""),
    ]
    assert one.told == []
    house.serve(one)
    assert (one.told, two.told, house.ups) == ([{"listen": True}], [], 0)
    house.serve(two)
    assert house.ups == 1


def test_a_crash(house: House, logged: LoggedFailures) -> None:
    """A worker that dies is replaced at once, and the new one learns whose claims it may release."""
    house.children[0].status = -signal.SIGKILL
    house.step(1.0)
    house.step()
    new = house.children[2]
    assert (new.number, new.owner, new.predecessor) == (1, "owner-2", "owner-0")
    assert house.children[0].told[-1] == {"closed": True}
    house.serve(new)
    assert house.ups == 1
    assert not house.supervisor.over


def test_crashes_at_once(house: House) -> None:
    """Pauses grow while a worker dies young; another one that serves keeps the server going. Good ones end that."""
    times: list[float] = []
    for _ in range(len(PAUSES) + 1):
        house.children[-1 if len(house.children) > 2 else 0].status = 1
        died = house.now
        house.step()
        count = len(house.children)
        while len(house.children) == count:
            house.step(0.5)
        times.append(house.now - died)
    assert [round(time - 0.5) if time > 0.5 else 0 for time in times[1:]] == [
        round(pause - 0.5) for pause in (*PAUSES[1:], PAUSES[-1])
    ]
    assert not house.supervisor.over
    house.serve(house.children[-1])
    house.step(GOOD)
    house.children[-1].status = 1
    died = house.now
    house.step()
    house.step()
    assert house.children[-1].status is None
    assert house.now == died


def test_never_ready() -> None:
    """A worker that cannot start in the beginning ends the server with status 1."""
    house = House()
    house.step()
    one, two = house.children
    one.status = 1
    house.step()
    assert two.signals == [signal.SIGTERM]
    two.status = 0
    house.step()
    assert (house.supervisor.over, house.supervisor.status, len(house.children)) == (True, 1, 2)


@pytest.mark.parametrize("status", [-signal.SIGKILL, 0, 1])
def test_ended_while_it_starts(status: int) -> None:
    """Beside one that serves a worker is replaced, also in the beginning: somebody ended it, or what keeps it from
    serving may pass, such as a database that is away for a moment."""
    house = House()
    house.step()
    one, two = house.children
    house.serve(one)
    two.status = status
    house.step()
    house.step()
    assert not one.signals
    house.serve(house.children[2])
    assert (house.ups, house.supervisor.over) == (1, False)


def test_killed_again_and_again_while_all_start() -> None:
    """Where none ever serves, all is given up."""
    house = House()
    for _ in range(200):
        house.step(1.0)
        for child in house.children:
            child.status = -signal.SIGKILL
        if house.supervisor.over:
            break
    assert house.supervisor.status == 1
    assert len(house.children) <= 2 * ATTEMPTS + 2


def test_never_ready_in_the_beginning() -> None:
    """A worker that hangs in the beginning ends the server, though it ended by our signal."""
    house = House()
    house.step()
    one, two = house.children
    house.step(READY_LIMIT + 1.0)
    two.status = -signal.SIGKILL
    house.step()
    assert one.signals[-1] == signal.SIGTERM


def test_nobody_left(house: House) -> None:
    """Where no worker serves and new ones die again and again, all is given up."""
    for _ in range(200):
        for child in house.children:
            child.status = 1
        house.step(1.0)
        if house.supervisor.over:
            break
    assert house.supervisor.status == 1
    assert len(house.children) <= 2 * ATTEMPTS + 2


def test_a_start_that_hangs() -> None:
    """A worker that is never ready is killed."""
    house = House()
    house.step()
    house.serve(house.children[0])
    house.step(READY_LIMIT)
    assert house.children[1].signals == []
    house.step(1.0)
    assert house.children[1].signals == [signal.SIGKILL]
    assert house.children[0].signals == []


def test_a_clean_stop(house: House) -> None:
    """All workers are asked to end and none is replaced; the status is 0."""
    house.supervisor.stop(house.now)
    house.supervisor.stop(house.now)
    assert [child.signals for child in house.children] == [[signal.SIGTERM]] * 2
    house.children[0].status = 0
    house.step(5.0)
    assert not house.supervisor.over
    house.children[1].status = 0
    house.step()
    assert (house.supervisor.over, house.supervisor.status, len(house.children)) == (True, 0, 2)


@pytest.mark.parametrize("status", [-signal.SIGTERM, 128 + signal.SIGTERM])
def test_a_stop_while_they_start(status: int) -> None:
    """A worker that did not serve yet ends by the signal itself, which is no failure."""
    house = House()
    house.step()
    house.serve(house.children[0])
    house.supervisor.stop(house.now)
    house.children[0].status, house.children[1].status = 0, status
    house.step()
    assert (house.supervisor.over, house.supervisor.status) == (True, 0)


def test_a_worker_that_ends_by_the_signal_while_it_serves(house: House) -> None:
    """Its turns did not end in order, and the status tells."""
    house.supervisor.stop(house.now)
    house.children[0].status, house.children[1].status = 0, -signal.SIGTERM
    house.step()
    assert (house.supervisor.over, house.supervisor.status) == (True, 1)


def test_a_stop_in_the_middle_of_a_start() -> None:
    """A signal that comes while a process is being made reaches that process, too."""
    house = House()
    house.during_start = lambda: house.supervisor.stop(house.now)
    house.step()
    assert [child.signals for child in house.children] == [[signal.SIGTERM]]
    house.children[0].status = -signal.SIGTERM
    house.step(1.0)
    assert (house.supervisor.over, house.supervisor.status, len(house.children)) == (True, 0, 1)


def no_process() -> None:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_no_process_can_be_made(house: House) -> None:
    """Where the system has no process left for a worker's replacement it is tried again, and the others serve."""
    house.during_start = no_process
    house.children[0].status = -signal.SIGKILL
    for _ in range(ATTEMPTS + 1):
        house.step(PAUSES[-1])
    assert (len(house.children), house.children[1].signals) == (2, [])
    house.during_start = lambda: None
    house.step(PAUSES[-1])
    new = house.children[2]
    assert (new.number, new.predecessor) == (1, "owner-0")
    house.serve(new)
    assert not house.supervisor.over


def test_no_process_can_be_made_in_the_beginning() -> None:
    """Where that keeps the first worker from being started, the server gives up."""
    house = House()
    house.during_start = no_process
    house.step()
    assert (house.supervisor.over, house.supervisor.status) == (True, 1)


def test_a_stop_that_hangs(house: House) -> None:
    """Whoever does not end in time is killed, and the status tells; a second Ctrl-C does not wait."""
    house.supervisor.stop(house.now)
    house.children[0].status = 0
    house.step(STOP_LIMIT)
    house.step(0.001)  # the system takes its time
    assert house.children[1].signals == [signal.SIGTERM, signal.SIGKILL]
    house.children[1].status = -signal.SIGKILL
    house.step()
    assert (house.supervisor.over, house.supervisor.status) == (True, 1)
    other = House()
    other.step()
    other.supervisor.stop(0.0, hurry=True)
    other.supervisor.stop(0.0, hurry=True)
    assert other.children[0].signals == [signal.SIGTERM, signal.SIGKILL]


FACTS = {"signature": None, "fingerprint": "f"}


def upload(child: FakeChild, path: Path) -> dict[str, Any]:
    path.write_text("a model")
    child.says.append({"upload": str(path), "facts": FACTS})
    return {"install": str(path), "facts": FACTS}


def test_an_upload_reaches_all(house: House, tmp_path: Path) -> None:
    """The uploader hears of it when every worker took the model; the next upload waits for that."""
    one, two = house.children
    first, second = upload(one, tmp_path / "1"), upload(two, tmp_path / "2")
    house.step()
    assert (one.told[1:], two.told[1:]) == ([first], [first])
    one.says.append({"installed": first["install"]})
    house.step()
    assert one.told[1:] == [first]
    two.says.append({"installed": first["install"]})
    house.step()
    assert one.told[1:] == [first, {"uploaded": first["install"]}, second]
    assert two.told[1:] == [first, second]


def test_a_new_worker_takes_what_was_uploaded(house: House, tmp_path: Path) -> None:
    """One that starts later serves the uploaded model before it listens, and nobody waits for one that died."""
    one, two = house.children
    model = upload(one, tmp_path / "1")
    house.step()
    one.says.append({"installed": model["install"]})
    two.status = 1
    house.step()
    house.step()
    assert one.told[-1] == {"uploaded": model["install"]}
    new = house.children[2]
    new.says.append({"ready": True})
    house.step()
    assert new.told == [model, {"listen": True}]


def test_an_uploader_that_dies(house: House, tmp_path: Path) -> None:
    """What it did not hand on yet is dropped."""
    one, two = house.children
    upload(one, tmp_path / "1")
    upload(two, tmp_path / "2")
    two.status = 1
    house.step()
    one.says.append({"installed": str(tmp_path / "1")})
    house.step()
    assert not (tmp_path / "2").exists()
    assert [message for message in one.told if "install" in message] == [
        {"install": str(tmp_path / "1"), "facts": FACTS}
    ]


def test_old_models_are_removed(house: House, tmp_path: Path) -> None:
    """The last two uploads stay on disk, the second for a worker that is about to read it."""
    for number in range(4):
        model = upload(house.children[0], tmp_path / str(number))
        house.step()
        for child in house.children:
            child.says.append({"installed": model["install"]})
        house.step()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_an_installation_that_hangs(house: House, tmp_path: Path) -> None:
    """A worker that does not take the model that all others serve is killed."""
    one, two = house.children
    model = upload(one, tmp_path / "1")
    house.step()
    one.says.append({"installed": model["install"]})
    house.step(INSTALL_LIMIT + 1)
    assert (one.signals, two.signals) == ([], [signal.SIGKILL])


@pytest.mark.parametrize(
    ("endpoints", "credentials", "reason"),
    [
        (None, None, "without a store that all workers share"),
        ("tracker_store: {type: memory}", None, "without a store that all workers share"),
        ("tracker_store: {type: sqlite, path: x}", "cmdline:", "the terminal of one process"),
    ],
)
def test_what_workers_cannot_do(tmp_path: Path, endpoints: str | None, credentials: str | None, reason: str) -> None:
    """A memory store and a console are refused with the reason."""
    paths: dict[str, Path | None] = {}
    for name, text in (("endpoints", endpoints), ("credentials", credentials)):
        paths[name] = None if text is None else tmp_path / f"{name}.yml"
        if text is not None:
            (tmp_path / f"{name}.yml").write_text(text)
    with pytest.raises(InvalidConfiguration, match=reason):
        check(RunSettings(core=tmp_path, workers=2, **paths), {})


def test_a_light_parent() -> None:
    """The parent loads neither numpy nor the server."""
    import subprocess
    import sys

    code = "import rasa_core_api.run, rasa_core_api.supervisor, rasa_core_api.logs, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "klein", "twisted.internet.reactor", "rasa_core_api.service"} & set(loaded)


def test_what_killed_parents_left_is_removed(tmp_path: Path) -> None:
    """Directories of parents that are gone are removed; those of living ones, and of strangers, stay."""
    gone, alive, strange = (tmp_path / f"rasa_core_api-workers-{name}" for name in ("gone", "alive", "strange"))
    for directory in (gone, alive, strange):
        directory.mkdir()
        (directory / "model.zip").touch()
    os.close(_hold(gone))
    held = _hold(alive)
    _remove_left_over(tmp_path)
    os.close(held)
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, strange.name]


def test_what_lies_for_workers_stays_young(tmp_path: Path) -> None:
    """A cleaner of temporary directories does not find the uploaded model too old, nor what the workers share."""
    model = tmp_path / "a.model"
    model.touch()
    for path in (model, tmp_path):
        os.utime(path, (0, 0))
    _keep_young(tmp_path)
    _keep_young(tmp_path / "gone")
    assert min(path.stat().st_mtime for path in (model, tmp_path)) > time.time() - 60
