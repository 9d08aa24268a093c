"""The order of all appends to the memory store, kept from the moment somebody asks for it."""

from __future__ import annotations

#: Appends that are remembered for those who come back, beyond what a cursor still has to read.
KEPT = 10_000
#: Appends that are remembered at the most: about 100 bytes each.
MOST = 1_000_000


class AppendOrder:
    """Positions count from `first`; each is one append: sender id, number of its first event, count, birth."""

    def __init__(self, first: int = 1) -> None:
        self._entries: list[tuple[str, int, int, int]] = []
        self._first = first  # position of the first entry
        self._wanted = False
        self.cursors: dict[str, str] = {}

    @property
    def end(self) -> int:
        """The position of the latest append; from now on appends are remembered."""
        self._wanted = True
        return self._first + len(self._entries) - 1

    def add(self, sender_id: str, seq: int, count: int, birth: int) -> None:
        """Remember an append, where anybody has asked."""
        if self._wanted and count:
            self._entries.append((sender_id, seq, count, birth))
            if len(self._entries) > 2 * KEPT:
                self._trim()

    def after(self, position: int, limit: int) -> list[tuple[int, str, int, int, int]]:
        """Entries beyond a position, with theirs."""
        self._wanted = True
        begin = max(0, position + 1 - self._first)
        return [
            (self._first + begin + index, *entry) for index, entry in enumerate(self._entries[begin : begin + limit])
        ]

    def lost(self, position: int) -> bool:
        """Whether what came right after a position is forgotten."""
        return position + 1 < self._first

    def _trim(self) -> None:
        keep = KEPT
        if self.cursors:
            unread = self._first + len(self._entries) - 1 - min(int(position) for position in self.cursors.values())
            keep = min(max(keep, unread), MOST)
        if len(self._entries) > 2 * keep or len(self._entries) > MOST:
            surplus = len(self._entries) - keep
            del self._entries[:surplus]
            self._first += surplus
