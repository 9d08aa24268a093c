"""What stores keep beside the events: claims, answers, reminders and places in the order of all appends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from rasa_core_api.events import Event


@frozen
class Tail:
    """The end of a log: it holds the numbers from `start` to below `end`; `events` are those that were asked for.

    `birth` is a number that a conversation has from its creation to its deletion, and no later one of the same id; 0
    where the store does not tell.
    """

    start: int
    end: int
    events: list[Event]
    birth: int = 0


@frozen
class Earlier:
    """What a request with the same key left: the events from `base` to below `end`, and its answer so far.

    `done` is false where the turn was stored in parts and did not come to its end.
    """

    base: int
    end: int
    answer: str  # JSON text
    done: bool


@frozen
class Opening:
    """What a turn finds: the log's tail (None: unknown), what its key left, and somebody else's claim.

    `held` is how many seconds that claim lasts unless it is renewed; 0 where there is none.
    """

    tail: Tail | None
    earlier: Earlier | None = None
    held: float = 0.0


@frozen
class Reminder:
    """An action that is due at `due` (seconds since the epoch); the event with the number `seq` asked for it."""

    sender_id: str
    name: str
    due: float
    seq: int
    channel: str | None = None  # name of the output channel


@frozen(kw_only=True)
class TurnNote:
    """What a turn leaves beside its events, with them or not at all.

    `owner` is whoever writes. With a `key` the `answer` is kept for `keep` seconds, for the request with this key that
    comes again; `base` is the number of the turn's first event. Unless `done`, more parts of this turn follow and its
    claim stays. `reminders`, each of another name, replace those of the same names; `fired` is the reminder that the
    turn came from. With `forgets` the answers that were kept before become `{}`, that there were some stays; only
    `replace` knows it. `start` is where the log began when it was read, and `birth` that of its conversation (0: not
    known): a log that begins elsewhere was replaced since, one of another birth was deleted and begun anew, and an
    append to it is refused like one behind another end.
    """

    owner: str = ""
    key: str | None = None
    base: int = 0
    answer: str = "null"
    keep: float = 0.0
    done: bool = True
    reminders: Sequence[Reminder] = ()
    fired: Reminder | None = None
    forgets: bool = False
    start: int | None = None
    birth: int = 0


#: What is left of an answer that is not to be known any more.
FORGOTTEN = "{}"

#: A note of those who have nothing to leave.
NO_NOTE = TurnNote()


#: Characters of JSON after which a feed is cut: whoever asks for many large appends gets fewer at once.
FEED_SIZE = 8 << 20


def may_go_on(count: int, limit: int, sizes: Iterable[int]) -> bool:
    """Whether a page of so many entries, asked for with this limit, may not be the last one.

    `sizes` are the lengths of what was made of its events, which may be a little shorter than what the store counted.
    """
    return count >= limit or sum(sizes) >= FEED_SIZE // 2


@frozen
class FeedEntry:
    """What one append added: `position` is its place in the order of all appends of the store."""

    position: str
    sender_id: str
    seq: int  # number of the first of the events
    events: list[Event]
