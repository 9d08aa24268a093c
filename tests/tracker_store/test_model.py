"""Any order of operations leaves what a list would hold."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from rasa_core_api.exceptions import StoreConflict

from .conftest import KINDS, Servers
from .stores import slots, texts, wait

names = st.sampled_from(["a", "b", "c"])
values = st.lists(st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=5)


class Conversations(RuleBasedStateMachine):
    """A store beside a dictionary of lists."""

    kind = "memory"
    servers: Servers

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store = self.servers.make(self.kind, self.directory)
        wait(self.store.open())
        self.servers.erase(self.store)
        self.model: dict[str, tuple[int, list[Any]]] = {}

    def teardown(self) -> None:
        wait(self.store.close())
        shutil.rmtree(self.directory)

    def end(self, name: str) -> int:
        start, known = self.model.get(name, (0, []))
        return start + len(known)

    @rule(name=names, new=values)
    def append(self, name: str, new: list[Any]) -> None:
        end = self.end(name)
        assert wait(self.store.append(name, end, slots(*new))) == end + len(new)
        self.model.setdefault(name, (0, []))[1].extend(new)

    @rule(name=names, new=values, off=st.integers(-3, 3).filter(bool))
    def append_elsewhere(self, name: str, new: list[Any], off: int) -> None:
        end = self.end(name) + off
        if end < 0:
            return
        with pytest.raises(StoreConflict):
            wait(self.store.append(name, end, slots(*new)))

    @rule(name=names, new=values)
    def replace(self, name: str, new: list[Any]) -> None:
        start = self.end(name)
        assert wait(self.store.replace(name, slots(*new))) == (start, start + len(new))
        self.model[name] = (start, list(new))

    @rule(name=names)
    def delete(self, name: str) -> None:
        assert wait(self.store.delete(name)) is (name in self.model)
        self.model.pop(name, None)

    @rule()
    def reopen(self) -> None:
        if self.kind != "memory":
            wait(self.store.close())
            self.store = self.servers.make(self.kind, self.directory)
            wait(self.store.open())

    @rule(name=names, after=st.integers(0, 12), limit=st.one_of(st.none(), st.integers(0, 6)))
    def read(self, name: str, after: int, limit: int | None) -> None:
        tail = wait(self.store.read(name, after, limit))
        if name not in self.model:
            assert tail is None
            return
        assert tail is not None
        start, known = self.model[name]
        wanted = known[max(after - start, 0) :][:limit]
        assert (tail.start, tail.end, texts(tail.events)) == (start, start + len(known), texts(slots(*wanted)))

    @invariant()
    def same_names(self) -> None:
        assert wait(self.store.sender_ids()) == list(self.model)


@pytest.mark.parametrize("kind", KINDS)
def test_like_a_dictionary_of_lists(kind: str, servers: Servers) -> None:
    """A store does what a dictionary of lists would do."""
    machine = type(f"Conversations_{kind}", (Conversations,), {"kind": kind, "servers": servers})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
