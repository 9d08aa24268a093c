"""What a SQLite file keeps beside the logs: claims, answers, reminders, cursors and roles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rasa_core_api.exceptions import ConversationHeld
from rasa_core_api.tracker_store.checks import position_of
from rasa_core_api.tracker_store.turns import FORGOTTEN, NO_NOTE, Reminder, TurnNote

if TYPE_CHECKING:
    from sqlite3 import Connection

#: Answers that are written between two looks for those that ran out, and how many of these go at once.
_SWEEP_EVERY = 256
_SWEEP = 1_000
#: Seconds that no claim or role lasts: an end beyond was counted before the machine was started anew.
_LONGEST = 600.0


def left_of(until: float, steady: float) -> float:
    """How many seconds a claim or role still lasts that ends at `until` of a clock which shows `steady`."""
    left = until - steady
    return left if 0 < left <= _LONGEST else 0.0


class TurnTables:
    """The tables as the one writer sees them. `now` gives seconds since the epoch, `steady` those of a clock that all
    processes of the machine share and nobody sets: by it claims and roles end, which none survives anyway.

    Claims are remembered as long as nobody else writes; answers are collected until `flush`.
    """

    def __init__(self, connection: Connection, now: Callable[[], float], steady: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now
        self._steady = steady
        self._claims: dict[str, tuple[str, float]] | None = None  # sender id: owner, end
        self.answers: list[tuple[str, str, int, int, bool, str, float]] = []
        self._written = 0

    def forget(self) -> None:
        """Somebody else wrote, or what was done is undone."""
        self._claims = None
        self.answers.clear()

    # --- claims --------------------------------------------------------------------------------------

    def _known(self) -> dict[str, tuple[str, float]]:
        claims = self._claims
        if claims is None:
            rows = self._connection.execute("SELECT sender_id, owner, until FROM claims")
            claims = self._claims = {sender_id: (owner, until) for sender_id, owner, until in rows}
        return claims

    def check(self, sender_id: str, owner: str) -> None:
        """Raise `ConversationHeld` where another owner's claim lasts."""
        found = self._known().get(sender_id)
        if found is not None and found[0] != owner:
            left = left_of(found[1], self._steady())
            if left > 0:
                raise ConversationHeld(sender_id, left)

    def held(self, sender_id: str, owner: str) -> bool:
        """Whether there is a claim of another owner, though it may have run out."""
        found = self._known().get(sender_id)
        return found is not None and found[0] != owner

    def claimed(self, sender_id: str) -> bool:
        """Whether there is a claim."""
        return sender_id in self._known()

    def claim(self, sender_id: str, owner: str, key: str | None, base: int, seconds: float) -> None:
        until = self._steady() + seconds
        self._connection.execute(
            "INSERT OR REPLACE INTO claims (sender_id, owner, key, base, until) VALUES (?, ?, ?, ?, ?)",
            (sender_id, owner, key, base, until),
        )
        self._known()[sender_id] = owner, until

    def renew(self, owner: str, seconds: float) -> None:
        self._connection.execute("UPDATE claims SET until = ? WHERE owner = ?", (self._steady() + seconds, owner))
        self._claims = None

    def release(self, owner: str, sender_id: str | None) -> None:
        if sender_id is None:
            self._connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
            self._claims = None
        elif self._known().get(sender_id, ("", 0.0))[0] == owner:
            self.end_claim(sender_id)

    def void(self) -> None:
        """Remove all claims and roles: nobody lives who has them."""
        self._connection.execute("DELETE FROM claims")
        self._connection.execute("DELETE FROM roles")
        self._claims = None

    def end_claim(self, sender_id: str) -> None:
        """Remove whatever claim there is."""
        if self._known().pop(sender_id, None) is not None:
            self._connection.execute("DELETE FROM claims WHERE sender_id = ?", (sender_id,))

    # --- notes ---------------------------------------------------------------------------------------

    def leave(self, sender_id: str, note: TurnNote, base: int, end: int) -> None:
        """Do what a note says; the turn's events are those from `base` to below `end`."""
        if note.done:
            self.end_claim(sender_id)
        if note is NO_NOTE:
            return
        if note.key is not None:
            self.answers.append((sender_id, note.key, base, end, note.done, note.answer, self._now() + note.keep))
        for reminder in note.reminders:
            self._connection.execute(
                "INSERT OR REPLACE INTO reminders (sender_id, name, due, seq, channel) VALUES (?, ?, ?, ?, ?)",
                (sender_id, reminder.name, reminder.due, reminder.seq, reminder.channel),
            )
        if note.fired is not None:
            self.forget_reminder(note.fired)

    def forget_reminder(self, reminder: Reminder) -> bool:
        found = self._connection.execute(
            "DELETE FROM reminders WHERE sender_id = ? AND name = ? AND seq = ?",
            (reminder.sender_id, reminder.name, reminder.seq),
        )
        return found.rowcount > 0

    def clear_reminders(self, sender_id: str) -> None:
        self._connection.execute("DELETE FROM reminders WHERE sender_id = ?", (sender_id,))

    def empty_answers(self, sender_id: str) -> None:
        self._connection.execute("UPDATE answers SET answer = ? WHERE sender_id = ?", (FORGOTTEN, sender_id))

    def clear_answers(self, sender_id: str) -> None:
        self._connection.execute("DELETE FROM answers WHERE sender_id = ?", (sender_id,))

    def clear(self, sender_id: str) -> None:
        """Remove all that is kept of a conversation."""
        self.end_claim(sender_id)
        self.clear_reminders(sender_id)
        self.clear_answers(sender_id)

    def until(self, seconds: float) -> float:
        """The time when so many seconds from now are over."""
        return self._now() + seconds

    def wrote(self, answers: int, sender_ids: Iterable[str]) -> None:
        """So many answers were written, and the claims of these conversations ended, by somebody else's statement."""
        self._written += answers
        claims = self._known()
        for sender_id in sender_ids:
            claims.pop(sender_id, None)

    def sweeps(self, written: int) -> bool:
        """Whether it is time to remove answers that ran out when so many more are written."""
        return self._written + written >= _SWEEP_EVERY

    def sweep(self, written: int) -> None:
        """Now and then remove answers that ran out."""
        if not self.sweeps(written):
            self._written += written
            return
        self._written = 0
        self._connection.execute(
            "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers WHERE until < ? ORDER BY until LIMIT ?)",
            (self._now(), _SWEEP),
        )

    # --- cursors and roles ---------------------------------------------------------------------------

    def set_cursor(self, name: str, position: str) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO cursors (name, position) VALUES (?, ?)", (name, position_of(position))
        )

    def hold(self, role: str, owner: str, seconds: float) -> bool:
        now = self._steady()
        found = self._connection.execute("SELECT owner, until FROM roles WHERE name = ?", (role,)).fetchone()
        if found is not None and found[0] != owner and left_of(found[1], now) > 0:
            return False
        self._connection.execute(
            "INSERT OR REPLACE INTO roles (name, owner, until) VALUES (?, ?, ?)", (role, owner, now + seconds)
        )
        return True
