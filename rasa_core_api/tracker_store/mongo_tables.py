"""Conversations as documents of MongoDB, for a single server as for a replica set: no step needs a transaction.

An append is one document, a block: its `_id` is the conversation's key and the number of its first event, so that of
two writers who saw the same end one is refused by the index. The answer of a request and the reminders of a turn are
members of the block that they came with. A claim is a document in the place of the next block; its owner puts the
block there, everybody else is refused until it runs out. A block tells where its log begins; the first one after a
replacement begins a new log, and what is before it is only waiting to be removed. Where the new log has no events yet,
the conversation's own document tells. `birth`, in both, is a random number of the conversation.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from time import time
from typing import Any

from rasa_core_api.exceptions import ConversationHeld, StoreConflict, StoreUnavailable
from rasa_core_api.tracker_store.checks import conflict, position_of, unknown_cursor
from rasa_core_api.tracker_store.turns import FEED_SIZE, FORGOTTEN, Earlier, Reminder, TurnNote

#: Bytes of an append; MongoDB takes documents of up to 16 MB.
MAX_APPEND = 15 << 20
#: What the names of our collections begin with.
PREFIX = "rasa_core_api_"
#: Seconds after which an append whose place in the order is missing is taken to have failed.
GAP = 10.0
#: Blocks that are fetched with one query.
_PAGE = 64
#: Latest blocks in which a sweep looks for conversations that are not listed.
_SWEPT = 10_000

#: The tail of a log: start, end, the number of the first event in the texts, the texts, the conversation's birth.
RawTail = tuple[int, int, int, list[str], int]


def key_of(sender_id: str) -> str:
    return hashlib.sha256(sender_id.encode()).hexdigest()


def _new_birth() -> int:
    return 1 + secrets.randbits(52)


def _id(key: str, seq: int) -> str:
    return f"{key}:{seq:015d}"


class MongoTables:
    """Everything that is done with the database; runs in worker threads. `database` is like one of pymongo's.

    `now` gives seconds since the epoch, as the database's server counts them.
    """

    def __init__(self, database: Any, now: Callable[[], float] = time) -> None:
        self._now = now
        self.conversations = database[f"{PREFIX}conversations"]
        self.blocks = database[f"{PREFIX}blocks"]
        self.answers = database[f"{PREFIX}answers"]
        self.places = database[f"{PREFIX}places"]  # counters, cursors and roles

    def prepare(self) -> None:
        """Create the indexes."""
        self.conversations.create_index("row", unique=True)
        self.blocks.create_index([("key", 1), ("seq", 1)])
        self.blocks.create_index("position", sparse=True)
        self.blocks.create_index([("key", 1), ("note.key", 1)], sparse=True)
        self.blocks.create_index("note.until", sparse=True)
        self.blocks.create_index("claim.owner", sparse=True)
        self.blocks.create_index("reminders.due", sparse=True)
        self.answers.create_index([("key", 1), ("request", 1)])
        self.answers.create_index("until")

    def _count(self, name: str) -> int:
        from pymongo import ReturnDocument

        found = self.places.find_one_and_update(
            {"_id": name}, {"$inc": {"count": 1}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        return int(found["count"])

    # --- logs ----------------------------------------------------------------------------------------

    def _last(self, key: str) -> Mapping[str, Any] | None:
        """The newest block, without its events."""
        for found in self.blocks.find({"key": key, "claim": None}, {"events": 0}).sort("_id", -1).limit(1):
            return dict(found)
        return None

    def _bounds(self, key: str) -> tuple[int, int, int] | None:
        """Start and end of a log, and the conversation's birth."""
        last = self._last(key)
        listed = self.conversations.find_one({"_id": key}, {"start": 1, "birth": 1})
        if last is None:
            return None if listed is None else (listed["start"], listed["start"], listed.get("birth", 0))
        if listed is None:  # whoever began it is about to list it, or died before
            self._list(last["sender_id"], key, last.get("birth", 0))
            if self._last(key) is None:  # it was being deleted
                self.conversations.delete_one({"_id": key})
        start = max(last["start"], 0 if listed is None else listed["start"])
        return start, max(start, last["seq"] + last["count"]), last.get("birth", 0)

    def read(self, sender_id: str, after: int, limit: int | None) -> RawTail | None:
        key = key_of(sender_id)
        bounds = self._bounds(key)
        if bounds is None:
            return None
        start, end, birth = bounds
        after = max(after, start)
        if after >= end or limit == 0:
            return start, end, after, [], birth
        stop = end if limit is None else min(end, after + limit)
        first = -1
        texts: list[str] = []
        seq = self._block_of(key, after)
        while seq < stop:
            query = {"key": key, "claim": None, "seq": {"$gte": seq, "$lt": stop}}
            page = list(self.blocks.find(query).sort("_id", 1).limit(_PAGE))
            if not page or page[0]["start"] > start or page[0].get("birth", 0) != birth:
                return self.read(sender_id, after, limit)  # replaced or deleted meanwhile
            if first < 0:
                first = page[0]["seq"]
            texts += [block["events"] for block in page]
            seq = page[-1]["seq"] + page[-1]["count"]
        return start, end, first, texts, birth

    def _block_of(self, key: str, seq: int) -> int:
        """The number of the first event of the block that has this one."""
        query = {"key": key, "claim": None, "seq": {"$lte": seq}}
        for found in self.blocks.find(query, {"seq": 1}).sort("_id", -1).limit(1):
            return int(found["seq"])
        return seq

    def append(self, sender_id: str, end: int, text: str, count: int, at: float, note: TurnNote) -> int:
        key = key_of(sender_id)
        bounds = self._bounds(key)
        found = 0 if bounds is None else bounds[1]
        self._check_claims(sender_id, key, found, note.owner)
        if found != end or (bounds is None and end):
            conflict(sender_id, end, None if bounds is None else found)
        if bounds is not None and (note.start not in (None, bounds[0]) or note.birth not in (0, bounds[2])):
            conflict(sender_id, end, end)
        birth = _new_birth() if bounds is None else bounds[2]
        if not count:
            self._leave_alone(key, end, note, note.base)
        else:
            if not note.done:  # whoever comes next finds the claim at the new end
                self._claim(sender_id, key, end + count, note.owner, note.key, self._left(key, note.owner))
            start = 0 if bounds is None else bounds[0]
            block = self._block(sender_id, key, birth, start, end, text, count, at)
            self._add_note(block, note, note.base)
            self._place(block, note.owner)
            self._tidy(block, note)
        if bounds is None:
            self._list(sender_id, key, birth)
        return end + count

    def replace(self, sender_id: str, text: str, count: int, at: float, note: TurnNote) -> tuple[int, int]:
        key = key_of(sender_id)
        while True:
            bounds = self._bounds(key)
            end, birth = (0, _new_birth()) if bounds is None else bounds[1:]
            self._check_claims(sender_id, key, end, note.owner)
            if not count:
                if bounds is not None:
                    self.conversations.update_one({"_id": key}, {"$max": {"start": end}})
                break
            block = self._block(sender_id, key, birth, end, end, text, count, at)
            self._add_note(block, note, end + note.base)
            try:
                self._place(block, note.owner)
            except StoreConflict:  # somebody appended: the log ends elsewhere now
                continue
            self._tidy(block, note)
            break
        if bounds is None:
            self._list(sender_id, key, birth)
        old = {"key": key, "seq": {"$lt": end}}
        for found in self.blocks.find({**old, "note": {"$exists": True}}, {"note": 1}).sort("_id", 1):
            answer = found["note"]
            later = {"_id": f"{key}:{answer['key']}", "end": {"$gte": answer["end"]}}
            if self.answers.find_one(later, {"_id": 1}) is None:
                self._keep(key, answer)
        if note.forgets:
            self.answers.update_many({"key": key}, {"$set": {"answer": FORGOTTEN}})
        self.blocks.delete_many(old)
        if not count:
            self._leave_alone(key, end, note, end + note.base)
        return end, end + count

    def _block(
        self, sender_id: str, key: str, birth: int, start: int, seq: int, text: str, count: int, at: float
    ) -> dict[str, Any]:
        if len(text) > MAX_APPEND:
            raise StoreUnavailable(f"MongoDB takes no more than {MAX_APPEND >> 20} MB of events at once.")
        return {
            "_id": _id(key, seq),
            "key": key,
            "sender_id": sender_id,
            "birth": birth,
            "start": start,
            "seq": seq,
            "count": count,
            "at": at,
            "stored": self._now(),
            "events": text,
        }

    def _add_note(self, block: dict[str, Any], note: TurnNote, base: int) -> None:
        if note.key is not None:
            block["note"] = self._answer(note, base, block["seq"] + block["count"])
        if note.reminders:
            block["reminders"] = [
                {"name": reminder.name, "due": reminder.due, "seq": reminder.seq, "channel": reminder.channel}
                for reminder in note.reminders
            ]

    def _place(self, document: dict[str, Any], owner: str) -> None:
        """Put a block or a claim at a log's end, in the place of a claim that is the owner's or ran out.

        Raises `ConversationHeld`, and `StoreConflict` where a block with events is there.
        """
        from pymongo.errors import DuplicateKeyError

        place = document["_id"]
        if "events" in document:
            document["position"] = self._count("position")
        while True:
            try:
                self.blocks.insert_one(document)
                return
            except DuplicateKeyError:
                found = self.blocks.find_one({"_id": place}, {"events": 0})
            if found is None:
                continue
            claim = found.get("claim")
            if claim is None:
                conflict(found["sender_id"], found["seq"], found["seq"] + found["count"])
            if claim["owner"] == owner:
                taken = {"_id": place, "claim.owner": owner}
            else:
                left = float(claim["until"]) - self._now()
                if left > 0:
                    raise ConversationHeld(document.get("sender_id", ""), left)
                taken = {"_id": place, "claim.owner": claim["owner"], "claim.until": claim["until"]}
            if self.blocks.replace_one(taken, document).matched_count:
                return

    def _tidy(self, block: Mapping[str, Any], note: TurnNote) -> None:
        """Remove the reminders that those of a note replace, and the one that fired."""
        for reminder in note.reminders:
            self._pull(block["key"], reminder.name, {"$lt": block["seq"]})
        if note.fired is not None:
            self.forget(note.fired)

    def _answer(self, note: TurnNote, base: int, end: int) -> dict[str, Any]:
        return {
            "key": note.key,
            "base": base,
            "end": end,
            "done": note.done,
            "answer": note.answer,
            "until": self._now() + note.keep,
        }

    def _leave_alone(self, key: str, end: int, note: TurnNote, base: int) -> None:
        """A note without events."""
        if note.key is not None:
            self._keep(key, self._answer(note, base, end))
        if note.fired is not None:
            self.forget(note.fired)
        if note.done:
            self.blocks.delete_many({"key": key, "claim.owner": note.owner})

    def _keep(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer without its block."""
        rest = {name: value for name, value in answer.items() if name != "key"}
        document = {"key": key, "request": answer["key"], **rest}
        self.answers.replace_one({"_id": f"{key}:{answer['key']}"}, document, upsert=True)

    def _list(self, sender_id: str, key: str, birth: int) -> None:
        """Give a conversation its place in the list, behind all that are seen: whoever lists on misses none.

        A place that was counted first could be seen after a later one.
        """
        from pymongo.errors import DuplicateKeyError

        while self.conversations.find_one({"_id": key}, {"_id": 1}) is None:
            listed = {"_id": key, "sender_id": sender_id, "start": 0, "row": self._last_row() + 1, "birth": birth}
            try:
                self.conversations.insert_one(listed)
            except DuplicateKeyError:  # somebody else took the place, or began the conversation
                continue

    def _last_row(self) -> int:
        for found in self.conversations.find({}, {"row": 1}).sort("row", -1).limit(1):
            return int(found["row"])
        return 0

    def delete(self, sender_id: str) -> bool:
        key = key_of(sender_id)
        found = self._bounds(key) is not None
        self.blocks.delete_many({"key": key})
        self.answers.delete_many({"key": key})
        self.conversations.delete_one({"_id": key})
        return found

    def names(self, after: str | None, limit: int | None, prefix: str) -> list[str]:
        row = 0
        if after is not None:
            found = self.conversations.find_one({"_id": key_of(after)}, {"row": 1})
            if found is None:
                raise unknown_cursor(after)
            row = found["row"]
        if limit == 0:
            return []
        names: list[str] = []
        for found in self.conversations.find({"row": {"$gt": row}}, {"sender_id": 1}).sort("row", 1):
            if found["sender_id"].startswith(prefix):
                names.append(found["sender_id"])
                if len(names) == limit:
                    break
        return names

    def idle(self, before: float, limit: int) -> list[str]:
        names: list[str] = []
        for found in self.conversations.find({}, {"sender_id": 1}).sort("row", 1):
            last = self._last(found["_id"])
            if last is None or last["at"] < before:
                names.append(found["sender_id"])
                if len(names) == limit:
                    break
        return names

    # --- turns ---------------------------------------------------------------------------------------

    def look(
        self, sender_id: str, after: int, limit: int | None, request: str | None, owner: str
    ) -> tuple[RawTail | None, Earlier | None, float]:
        key = key_of(sender_id)
        while True:
            tail = self.read(sender_id, after, limit)
            end = 0 if tail is None else tail[1]
            earlier = self._earlier(key, request)  # asked for last: an answer may be newer than the log, never older
            if earlier is None or earlier.end <= end or tail == self.read(sender_id, after, limit):
                return tail, earlier, self._held(key, end, owner)

    def _earlier(self, key: str, request: str | None) -> Earlier | None:
        if request is None:
            return None
        now = self._now()
        found = self.answers.find_one({"_id": f"{key}:{request}", "until": {"$gt": now}})
        query = {"key": key, "note.key": request, "note.until": {"$gt": now}}
        for block in self.blocks.find(query, {"note": 1}).sort("_id", -1).limit(1):
            if found is None or found["end"] < block["note"]["end"]:  # one without events came behind the block
                found = block["note"]
        if found is None:
            return None
        return Earlier(found["base"], found["end"], found["answer"], found["done"])

    def _held(self, key: str, end: int, owner: str) -> float:
        """Seconds of another owner's claim at the log's end."""
        for found in self.blocks.find({"_id": _id(key, end), "claim.owner": {"$ne": owner}}, {"claim": 1}):
            claim = found.get("claim")
            if claim is not None:
                return max(0.0, float(claim["until"]) - self._now())
        return 0.0

    def _check_claims(self, sender_id: str, key: str, end: int, owner: str) -> None:
        held = self._held(key, end, owner)
        if held:
            raise ConversationHeld(sender_id, held)

    def _left(self, key: str, owner: str) -> float:
        """Seconds of the owner's own claim in this conversation."""
        found = self.blocks.find_one({"key": key, "claim.owner": owner}, {"claim": 1})
        return 5.0 if found is None else max(0.0, float(found["claim"]["until"]) - self._now())

    def claim(
        self, sender_id: str, end: int, owner: str, request: str | None, seconds: float, birth: int = 0
    ) -> None:
        key = key_of(sender_id)
        bounds = self._bounds(key)
        found = 0 if bounds is None else bounds[1]
        self._check_claims(sender_id, key, found, owner)
        if found != end:
            conflict(sender_id, end, None if bounds is None else found)
        if bounds is not None and birth not in (0, bounds[2]):
            conflict(sender_id, end, end)
        self._claim(sender_id, key, end, owner, request, seconds)

    def _claim(
        self, sender_id: str, key: str, end: int, owner: str, request: str | None, seconds: float
    ) -> None:
        claim = {"owner": owner, "request": request, "until": self._now() + seconds}
        document = {"_id": _id(key, end), "key": key, "sender_id": sender_id, "seq": end, "claim": claim}
        self._place(document, owner)

    def renew(self, owner: str, seconds: float) -> None:
        self.blocks.update_many({"claim.owner": owner}, {"$set": {"claim.until": self._now() + seconds}})

    def release(self, owner: str, sender_id: str | None) -> None:
        query: dict[str, Any] = {"claim.owner": owner}
        if sender_id is not None:
            query["key"] = key_of(sender_id)
        self.blocks.delete_many(query)

    def sweep(self) -> None:
        """Remove answers that ran out, and list conversations that began lately and whose process died over it."""
        latest = self.blocks.find({"position": {"$exists": True}}, {"key": 1, "seq": 1}).sort("position", -1)
        begun = {block["key"] for block in latest.limit(_SWEPT) if not block["seq"]}
        for found in self.conversations.find({"_id": {"$in": list(begun)}}, {"_id": 1}):
            begun.discard(found["_id"])
        for key in begun:
            self._bounds(key)
        now = self._now()
        self.answers.delete_many({"until": {"$lt": now}})
        self.blocks.update_many({"note.until": {"$lt": now}}, {"$unset": {"note": 1}})

    # --- reminders -----------------------------------------------------------------------------------

    def due(self, before: float, limit: int) -> list[Reminder]:
        return self._reminders({"reminders.due": {"$lt": before}}, before)[:limit]

    def reminders(self, sender_id: str) -> list[Reminder]:
        return self._reminders({"key": key_of(sender_id), "reminders.0": {"$exists": True}}, None)

    def _reminders(self, query: Mapping[str, Any], before: float | None) -> list[Reminder]:
        latest: dict[tuple[str, str], Reminder] = {}
        for block in self.blocks.find(query, {"sender_id": 1, "reminders": 1}):
            for item in block["reminders"]:
                reminder = Reminder(block["sender_id"], item["name"], item["due"], item["seq"], item["channel"])
                earlier = latest.get((reminder.sender_id, reminder.name))
                if earlier is None or earlier.seq < reminder.seq:
                    latest[reminder.sender_id, reminder.name] = reminder
        chosen = [reminder for reminder in latest.values() if before is None or reminder.due < before]
        return sorted(chosen, key=lambda reminder: (reminder.due, reminder.seq))

    def forget(self, reminder: Reminder) -> bool:
        query = {
            "key": key_of(reminder.sender_id),
            "reminders": {"$elemMatch": {"name": reminder.name, "seq": reminder.seq}},
        }
        changed = self.blocks.update_many(
            query, {"$pull": {"reminders": {"name": reminder.name, "seq": reminder.seq}}}
        )
        return bool(changed.modified_count)

    def _pull(self, key: str, name: str, seq: Mapping[str, int]) -> None:
        """Remove reminders of a name from earlier blocks."""
        self.blocks.update_many(
            {"key": key, "seq": seq, "reminders.name": name}, {"$pull": {"reminders": {"name": name}}}
        )

    # --- the order of all appends ----------------------------------------------------------------------

    def feed(self, after: str | None, limit: int) -> list[tuple[int, str, int, str]]:
        """Position, sender id, number of the first event and the events' text; it waits before a gap for a while."""
        found: list[tuple[int, str, int, str]] = []
        last, size = position_of(after), 0
        for block in self.blocks.find({"position": {"$gt": last}}).sort("position", 1).limit(limit):
            position = block["position"]
            if position > last + 1 and last and self._now() - block["stored"] < GAP:
                break  # the one before may be under way
            last = position
            found.append((position, block["sender_id"], block["seq"], block["events"]))
            size += len(block["events"])
            if size >= FEED_SIZE:
                break
        return found

    def feed_end(self) -> int:
        for found in self.blocks.find({"position": {"$exists": True}}, {"position": 1}).sort("position", -1).limit(1):
            return int(found["position"])
        return 0

    def cursor(self, name: str) -> int | None:
        found = self.places.find_one({"_id": f"cursor {name}"})
        return None if found is None else int(found["position"])

    def set_cursor(self, name: str, position: str) -> None:
        number = position_of(position)
        self.places.update_one({"_id": f"cursor {name}"}, {"$set": {"position": number}}, upsert=True)

    def hold(self, role: str, owner: str, seconds: float) -> bool:
        from pymongo.errors import DuplicateKeyError

        now = self._now()
        try:
            self.places.update_one(
                {"_id": f"role {role}", "$or": [{"owner": owner}, {"until": {"$lt": now}}]},
                {"$set": {"owner": owner, "until": now + seconds}},
                upsert=True,
            )
        except DuplicateKeyError:
            return False
        return True

