"""What waits to begin: one of a key at a time, the keys in turn, and a bounded number at once."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairLine(Generic[T]):
    """`at_once` may be under way, or more after `widen`, `most` at the most; each that ends takes back some of that."""

    def __init__(self, at_once: int, most: int) -> None:
        self._at_once = at_once
        self._most = most
        self._allowed = at_once
        self._waiting: dict[str, deque[T]] = {}  # of keys that wait or are under way
        self._keys: deque[str] = deque()  # whose next one may begin
        self._under_way = 0
        self.ended = 0

    def __len__(self) -> int:
        """How many wait, those behind one of their own key included."""
        return sum(map(len, self._waiting.values()))

    def add(self, key: str, item: T) -> None:
        """Let it wait behind the others of its key."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = deque()
            self._keys.append(key)
        waiting.append(item)

    @property
    def may_begin(self) -> bool:
        """Whether there is one to begin, and room for it."""
        return bool(self._keys) and self._under_way < self._allowed

    @property
    def is_full(self) -> bool:
        """Whether one waits for others to end."""
        return bool(self._keys) and self._under_way >= self._allowed

    def begin(self) -> tuple[str, T]:
        """Take the next one and its key; `end` is to be called when it is over."""
        key = self._keys.popleft()
        self._under_way += 1
        return key, self._waiting[key].popleft()

    def end(self, key: str) -> None:
        """One of this key is over."""
        self.ended += 1
        self._under_way -= 1
        self._allowed = max(self._at_once, self._allowed - 1)
        if self._waiting.get(key):
            self._keys.append(key)
        else:
            self._waiting.pop(key, None)

    def widen(self) -> None:
        """Let so many more begin."""
        self._allowed = min(self._most, self._allowed + self._at_once)

    def clear(self) -> None:
        """Begin none of those that wait."""
        self._keys.clear()
        for waiting in self._waiting.values():
            waiting.clear()
