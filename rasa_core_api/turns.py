"""A turn as a transaction: its place in line, its claim, its events and its answer, stored together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.channels.collecting import collect
from rasa_core_api.claims import Claims, Patience
from rasa_core_api.concurrency import Lines, Slices
from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.dispatcher import Dispatcher
from rasa_core_api.domain import Domain
from rasa_core_api.events import ActionExecuted
from rasa_core_api.exceptions import ConversationHeld, StoreConflict
from rasa_core_api.jsontext import encode
from rasa_core_api.kept_answers import kept_of, messages_of, view_at
from rasa_core_api.live_trackers import LiveTrackers
from rasa_core_api.messages import RequestKey
from rasa_core_api.nlg import Response
from rasa_core_api.open_turns import has_listened, is_torn, open_note
from rasa_core_api.tracker_store import TrackerStore
from rasa_core_api.tracker_store.turns import Earlier, Reminder, TurnNote
from rasa_core_api.tracker_views import EventVerbosity
from rasa_core_api.trackers import Tracker
from rasa_core_api.turn_values import COLLECTOR, Model, Outcome, OutputChannel, RequestOutput, Turn, Work

log = Logger()

#: Responses and reminders that are handled before the reactor gets its turn.
_AT_ONCE = 128
#: Attempts at a turn that had no side effect yet when somebody else was faster.
_ATTEMPTS = 50
#: Beyond this part of turns that were overtaken the store is asked before a turn; and the weight of the latest turn.
_OFTEN, _WEIGHT = 0.1, 0.02


@define
class Turns:
    """Runs turns as transactions; those of one conversation one after another, in the order they came.

    A turn that fails leaves nothing in the store, and the next one begins from what is stored. `scheduled` is told of
    reminders once they are stored, with the output channel of their turn; `told` is told of every conversation whose
    log has grown.
    """

    store: TrackerStore
    trackers: LiveTrackers
    lines: Lines
    slices: Slices
    clock: IReactorTime
    claims: Claims
    scheduled: Callable[[Reminder, object], None]
    told: Callable[[str], None] = lambda sender_id: None
    _plain: TurnNote = field(init=False)
    _overtaken: float = field(default=0.0, init=False)  # the part of recent turns

    def __attrs_post_init__(self) -> None:
        self._plain = TurnNote(owner=self.claims.owner)

    async def run(
        self,
        model: Model,
        sender_id: str,
        work: Work,
        *,
        output: OutputChannel | None = None,
        request: RequestKey | None = None,
        fired: Reminder | None = None,
        verbosity: EventVerbosity | None = None,
        over: Callable[[bool], None] | None = None,
    ) -> Outcome:
        """Do `work` as one turn, unless the same request came before: then its outcome is given again.

        `over` is told at the end whether the turn, or one of its actions, failed. Raises `KeyReused` for a key that
        another request had, and `ConversationHeld` where another process does not come to an end.
        """
        async with self.lines.of(sender_id):
            await self.slices.breathe()
            waited = Patience(self.clock, sender_id)
            attempts = 0
            while True:
                trusting = not attempts and self._overtaken < _OFTEN
                opened = await self.trackers.open(sender_id, model.domain, request, self.claims.owner, trusting)
                earlier = opened.earlier
                if earlier is not None and request is not None:
                    kept = kept_of(earlier, request)
                    if earlier.done:
                        return await self._again(model, opened.tracker, earlier, kept, output, verbosity)
                else:
                    kept = {}
                if opened.held:
                    await waited.wait(opened.held)
                    continue
                attempts += 1
                turn = self._begin(model, opened.tracker, opened.stored, output, request, earlier, kept)
                turn.fired = fired
                turn.start = opened.tracker.start if self.store.shared else None
                try:
                    if turn.resumed:
                        await self._send_again(turn)
                    if earlier is None or _is_end(earlier, turn):
                        await work(turn)
                    else:  # the conversation went on without it: what is left to do would answer something else
                        turn.open = False  # nobody brings it to its end, and that it is open stays noted
                    await self.commit(turn)
                except (StoreConflict, ConversationHeld) as error:
                    # somebody else was faster: begin anew from what is stored now, if that can harm nobody
                    await self.abandon(turn)
                    self._learn(True)
                    if turn.effects or attempts == _ATTEMPTS:
                        _tell(over, True)
                        raise
                    if isinstance(error, ConversationHeld):
                        await waited.wait(error.seconds)
                    continue
                except Exception:
                    await self.abandon(turn)
                    _tell(over, True)
                    raise
                except BaseException:  # the process ends: no time to wait for the store
                    self.trackers.drop(sender_id)
                    raise
                finally:
                    turn.tracker.release_followup()
                self._learn(opened.behind)
                _tell(over, turn.failed)
                view = None if verbosity is None else turn.tracker.view(verbosity)
                return Outcome(turn.answers, turn.extra, view)

    def _learn(self, overtaken: bool) -> None:
        """How often other processes go on with a conversation that is kept here decides whether to look first."""
        self._overtaken += _WEIGHT * (overtaken - self._overtaken)

    def _begin(
        self,
        model: Model,
        tracker: Tracker,
        stored: int,
        output: OutputChannel | None,
        request: RequestKey | None,
        earlier: Earlier | None,
        kept: Mapping[str, JSON],
    ) -> Turn:
        name = COLLECTOR if output is None else output.channel_name()
        dispatcher = Dispatcher(model.generator, name, model.release)
        turn = Turn(model, tracker, dispatcher, stored, stored, output, request)
        if earlier is not None:
            turn.base = earlier.base
            turn.resumed = turn.effects = turn.open = True
            turn.answers = messages_of(kept)
            turn.responses = list(kept.get("responses") or ())
        return turn

    async def claim(self, turn: Turn) -> None:
        """Keep other processes out of the conversation before something leaves this one."""
        if not turn.claimed and self.store.claims:
            key = None if turn.request is None else turn.request.key
            await self.claims.take(turn.tracker.sender_id, turn.stored, key, turn.tracker.birth)
            turn.claimed = True
        turn.effects = True

    async def commit(self, turn: Turn, done: bool = True) -> None:
        """Store the new events and what was said, then schedule reminders and send what is to be sent.

        Not `done`: more of this turn is to come.
        """
        tracker = turn.tracker
        responses, turn.dispatcher.responses = turn.dispatcher.responses, []
        if responses:
            await self._collect(turn, responses)
        if not done:
            await self.claim(turn)
            if turn.request is not None and not turn.open:  # else the note of the part says so
                await self._open(turn)
        elif turn.open and not has_listened(tracker, turn.base):
            await self._tell_open(turn, False)
        kept = turn.request is not None or turn.fired is not None
        if tracker.end > turn.stored or (done and (kept or turn.claimed)):
            note = self._note(turn, done)
            begun = turn.stored
            turn.stored = await self._append(tracker, begun, note)
            self.trackers.keep(tracker)
            if not done:
                turn.open = True
            if done and turn.claimed:
                self.claims.ended(tracker.sender_id)
                turn.claimed = False
            if turn.stored > begun:
                self.told(tracker.sender_id)
        if turn.reminders:
            reminders, turn.reminders = turn.reminders, {}
            for number, reminder in enumerate(reminders.values(), 1):
                self.scheduled(reminder, turn.output)
                if not number % _AT_ONCE:
                    await self.slices.breathe()
        if responses and turn.output is not None:
            await _send(turn.output, tracker.sender_id, responses)

    async def _open(self, turn: Turn) -> None:
        """Note that the turn may be cut off, before its first part: nobody would know of one that ends in between."""
        tracker = turn.tracker
        if turn.stored:
            await self._tell_open(turn, True)
            return
        # a new conversation gets the listen that it begins with, which is no part of the turn
        first = [event for event in tracker.events[:1] if isinstance(event, ActionExecuted)]
        note = open_note(self.claims.owner, turn.base, True, turn.start, tracker.birth)
        turn.stored, tracker.birth = await self.store.begin(tracker.sender_id, first, note)

    async def _tell_open(self, turn: Turn, is_open: bool) -> None:
        note = open_note(self.claims.owner, turn.base, is_open, turn.start, turn.tracker.birth)
        await self.store.append(turn.tracker.sender_id, turn.stored, [], note)

    async def end_torn(self, turn: Turn, now: float) -> None:
        """Let the bot listen where the turn before never came to its end: what comes now is not the middle of that."""
        tracker = turn.tracker
        if tracker.end == turn.stored and await is_torn(self.store, tracker, self.claims.owner):
            tracker.update(ActionExecuted(action_name=ACTION_LISTEN, timestamp=now))

    async def _append(self, tracker: Tracker, end: int, note: TurnNote) -> int:
        """Store the tracker's events from `end` on; a conversation that begins here gets its birth."""
        events = tracker.events_since(end)
        if end or tracker.birth:
            return await self.store.append(tracker.sender_id, end, events, note)
        end, tracker.birth = await self.store.begin(tracker.sender_id, events, note)
        return end

    async def _collect(self, turn: Turn, responses: Sequence[Response]) -> None:
        if turn.output is not None and not _answers(turn.output):
            if turn.request is not None:
                turn.responses += responses
            return
        sender_id, release = turn.tracker.sender_id, turn.model.release
        for number, response in enumerate(responses, 1):
            turn.answers += collect(sender_id, response, release)
            if not number % _AT_ONCE:
                await self.slices.breathe()

    def _note(self, turn: Turn, done: bool) -> TurnNote:
        request, reminders = turn.request, list(turn.reminders.values())
        owner, start, birth = self.claims.owner, turn.start, turn.tracker.birth
        if done and request is None and turn.fired is None and not reminders:
            return self._plain if start is None else TurnNote(owner=owner, start=start, birth=birth)
        if request is None and not done and not turn.open:
            return evolve(open_note(owner, turn.base, True, start, birth), reminders=reminders)
        if request is None:
            return TurnNote(
                owner=owner, done=done, reminders=reminders, fired=turn.fired, start=start, birth=birth
            )
        kept: dict[str, JSON] = {"digest": request.digest, "messages": [answer.as_dict() for answer in turn.answers]}
        if turn.responses:
            kept["responses"] = turn.responses
        if turn.extra:
            kept["extra"] = turn.extra
        return TurnNote(
            owner=owner,
            key=request.key,
            base=turn.base,
            answer=encode(kept),
            keep=request.keep,
            done=done,
            reminders=reminders,
            fired=turn.fired if done else None,  # else nobody would finish it after a crash
            start=start,
            birth=birth,
        )

    async def abandon(self, turn: Turn) -> None:
        """Give up what was not stored."""
        sender_id = turn.tracker.sender_id
        self.trackers.drop(sender_id)
        if turn.claimed:
            turn.claimed = False
            await self.claims.give_up(sender_id)

    # --- requests that come again --------------------------------------------------------------------

    async def _again(
        self,
        model: Model,
        tracker: Tracker,
        earlier: Earlier,
        kept: Mapping[str, JSON],
        output: OutputChannel | None,
        verbosity: EventVerbosity | None,
    ) -> Outcome:
        """The outcome of a turn that is over; nothing runs."""
        if output is not None and _answers(output):
            output.keep(messages_of(kept))
        view = None if verbosity is None else await view_at(tracker, earlier.end, verbosity, self.slices)
        return Outcome(messages_of(kept), kept.get("extra") or {}, view)

    async def _send_again(self, turn: Turn) -> None:
        """What was said before the process ended may not have arrived."""
        output = turn.output
        if output is not None and _answers(output):
            output.keep(turn.answers)
        elif output is not None:
            await _send(output, turn.tracker.sender_id, turn.responses)

    # --- without a turn ------------------------------------------------------------------------------

    async def current(self, sender_id: str, domain: Domain) -> Tracker:
        """The tracker, stored when the conversation is new; the caller holds its place in line."""
        for _ in range(_ATTEMPTS):
            tracker, stored = await self.trackers.current(sender_id, domain)
            if tracker.end == stored:
                return tracker
            try:
                await self._append(tracker, stored, self._plain)
            except StoreConflict:  # somebody else began it
                self.trackers.drop(sender_id)
                continue
            except ConversationHeld:  # somebody else is about to
                return tracker
            self.trackers.keep(tracker)
            self.told(sender_id)
            return tracker
        raise ConversationHeld(sender_id)


def _is_end(earlier: Earlier, turn: Turn) -> bool:
    """Whether a log ends with what a request left, though it may have been replaced by one without events."""
    return earlier.end == turn.stored and earlier.base >= turn.tracker.start


def _tell(over: Callable[[bool], None] | None, failed: bool) -> None:
    if over is not None:
        over(failed)


def _answers(output: object) -> TypeGuard[RequestOutput]:
    return isinstance(output, RequestOutput) and output.answers_request


async def _send(output: OutputChannel, sender_id: str, responses: Sequence[Response]) -> None:
    for response in responses:
        try:
            await output.send(sender_id, response)
        except CancelledError:
            raise
        except Exception:
            log.failure("a message could not be sent over {channel}", channel=output.channel_name())
