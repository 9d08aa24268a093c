"""A second model on live traffic: what it would have done, how often that agrees, and when it is to be withdrawn."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import JSON
from rasa_core_api.models.generation import Generation
from rasa_core_api.trackers import Tracker

log = Logger()

#: Predictions that may wait to be compared; those beyond are counted as skipped.
MAX_WAITING = 2_000
#: Conversations whose state is kept for the second model.
MAX_TRACKERS = 500
#: Events that a conversation may have when the second model meets it; longer ones are skipped.
MAX_REPLAY = 5_000
_AT_ONCE = 128


@define
class Agreement:
    """How often the second model agreed, for one action of the model in service or for all."""

    predictions: int = 0
    agreed: int = 0

    def count(self, same: bool) -> None:
        self.predictions += 1
        self.agreed += same

    def as_json(self) -> dict[str, JSON]:
        rate = self.agreed / self.predictions if self.predictions else None
        return {"predictions": self.predictions, "agreed": self.agreed, "agreement": rate}


@define
class Comparison:
    """Predicts with a second model what another one predicted, and counts where they agree.

    It has trackers of its own, brought up to date from the events of the conversation, and works in slices behind
    the answers. `on_count` is called after each comparison.
    """

    generation: Generation | None  # None: closed
    _slices: Slices
    _on_count: Callable[[], None] | None = None
    total: Agreement = field(factory=Agreement, init=False)
    by_action: dict[str, Agreement] = field(factory=dict, init=False)
    skipped: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    _waiting: deque[tuple[Tracker, int, str]] = field(factory=deque, init=False)
    _trackers: OrderedDict[str, Tracker] = field(factory=OrderedDict, init=False)
    _busy: bool = field(default=False, init=False)

    def predicted(self, tracker: Tracker, action: str) -> None:
        """The model in service chose this action after the events that the tracker has now."""
        if self.generation is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.skipped += 1
            return
        self._waiting.append((tracker, tracker.end, action))
        if not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._work()).addErrback(
                lambda failure: log.failure("models could not be compared", failure)
            )

    def close(self) -> None:
        """Stop comparing and let go of the model and all conversations; the counts stay."""
        self.generation = None
        self._on_count = None
        self._waiting.clear()
        self._trackers.clear()

    async def _work(self) -> None:
        try:
            while True:
                await self._slices.breathe()
                if not self._waiting:
                    return
                tracker, end, action = self._waiting.popleft()
                if self.generation is None:
                    return
                own = await self._caught_up(self.generation, tracker, end)
                if self.generation is None:
                    return
                if own is None:
                    self.skipped += 1
                else:
                    self._compare(self.generation, own, action)
        finally:
            self._busy = False

    def _compare(self, generation: Generation, own: Tracker, action: str) -> None:
        end = own.end
        try:
            choice = generation.ensemble.choose(own)
            same = generation.domain.action_names[choice.index] == action
        except Exception as error:
            self.failed += 1
            same = False
            if self.failed == 1:
                log.error("the model {source} fails to predict: {error}", source=generation.source, error=repr(error))
        self.total.count(same)
        self.by_action.setdefault(action, Agreement()).count(same)
        if own.end != end:  # a form logged its validation: these are not the events of the conversation any more
            self._trackers.pop(own.sender_id, None)
        if self._on_count is not None:
            self._on_count()

    async def _caught_up(self, generation: Generation, tracker: Tracker, end: int) -> Tracker | None:
        """A tracker for the second model with the events before `end`."""
        sender_id = tracker.sender_id
        own = self._trackers.pop(sender_id, None)
        if own is None or own.start != tracker.start or own.end > end:
            own = Tracker(sender_id, generation.domain, tracker.start)
        missing = end - own.end
        if missing > MAX_REPLAY:
            return None
        first = own.end - tracker.start
        for begin in range(first, first + missing, _AT_ONCE):
            if begin > first:
                await self._slices.breathe()
            own.extend(tracker.events[begin : min(begin + _AT_ONCE, first + missing)])
        if self.generation is None:
            return None
        self._trackers[sender_id] = own
        if len(self._trackers) > MAX_TRACKERS:
            self._trackers.popitem(last=False)
        return own

    def as_json(self) -> dict[str, JSON]:
        """Part of `/status`."""
        return {
            **self.total.as_json(),
            "skipped": self.skipped,
            "failed": self.failed,
            "by_action": {action: counts.as_json() for action, counts in sorted(self.by_action.items())},
        }


def chosen(sender_id: str, share: float) -> bool:
    """Whether a conversation belongs to this share (0 to 1): always the same answer for the same sender."""
    digest = hashlib.sha256(sender_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@define
class Trial:
    """Watches a canary: the turns it served and how far it disagrees with the model in service.

    Once one of the rates passes its limit, after `min_turns` turns, `on_failure` is called with the reason.
    """

    _max_error_rate: float
    _max_disagreement: float
    _min_turns: int
    _on_failure: Callable[[str], None]
    comparison: Comparison | None = field(default=None, init=False)
    turns: int = field(default=0, init=False)
    errors: int = field(default=0, init=False)
    over: bool = field(default=False, init=False)

    def predicted(self, tracker: Tracker, action: str) -> None:
        """An observer's part: the canary chose an action."""
        if self.comparison is not None:
            self.comparison.predicted(tracker, action)

    def turn_over(self, failed: bool) -> None:
        """An observer's part: a turn of the canary's ended."""
        self.turns += 1
        self.errors += failed
        self.judge()

    def judge(self) -> None:
        """Look at both rates."""
        if self.over or self.turns < self._min_turns:
            return
        if self.errors / self.turns > self._max_error_rate:
            self._fail(f"{self.errors} of {self.turns} turns failed")
            return
        counts = self.comparison.total if self.comparison is not None else None
        if counts is None or counts.predictions < self._min_turns:
            return
        apart = counts.predictions - counts.agreed
        if apart / counts.predictions > self._max_disagreement:
            self._fail(f"{apart} of {counts.predictions} predictions differ from those of the model in service")

    def _fail(self, reason: str) -> None:
        self.over = True
        self._on_failure(reason)
