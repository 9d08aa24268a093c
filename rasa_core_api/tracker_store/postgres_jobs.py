"""What the thread that writes to PostgreSQL is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasa_core_api.tracker_store.texts import Block
from rasa_core_api.tracker_store.threads import CallJob, Job
from rasa_core_api.tracker_store.turns import NO_NOTE, TurnNote


class WriteJob(Job[Any]):
    """A change of one conversation: an append after `end`, or, without it, a replacement or a deletion."""

    __slots__ = ("birth", "blocks", "count", "end", "kind", "note", "sender_id")

    def __init__(
        self,
        kind: str,
        sender_id: str,
        end: int = 0,
        count: int = 0,
        blocks: Sequence[Block] = (),
        note: TurnNote = NO_NOTE,
    ) -> None:
        super().__init__()
        self.birth = 0  # of the conversation that was appended to, once it is done
        self.note = note
        self.kind = kind  # append, replace or delete
        self.sender_id = sender_id
        self.end = end
        self.count = count
        self.blocks = blocks


class ClaimJob(Job[None]):
    """Claims the log that ends at `end`."""

    __slots__ = ("birth", "end", "owner", "seconds", "sender_id")

    def __init__(self, sender_id: str, end: int, owner: str, seconds: float, birth: int = 0) -> None:
        super().__init__()
        self.birth = birth
        self.sender_id = sender_id
        self.end = end
        self.owner = owner
        self.seconds = seconds


AnyJob = WriteJob | ClaimJob | CallJob
