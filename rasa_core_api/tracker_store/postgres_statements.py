"""What the writer of PostgreSQL says for any number of turns at once."""

from __future__ import annotations

# One statement, and so one transaction and one answer, for any number of appends to different conversations. The
# update is the comparison: where another process was faster its condition is checked again, against what that one left.
# Claims are columns of the same row: whoever claims and whoever appends wait for each other there.
_APPEND = """
WITH /* lock */input AS (
    SELECT u.* FROM unnest(%(keys)s::bytea[], %(names)s::text[], %(ends)s::bigint[], %(new)s::bigint[],
        %(claimants)s::text[], %(over)s::bool[], %(firsts)s::bigint[], %(births)s::bigint[])
        AS u(key, sender_id, old_end, new_end, owner, done, first_seq, birth)/* locked */
), updated AS (
    UPDATE rasa_core_api_conversations c SET end_seq = input.new_end,
        claim_owner = CASE WHEN input.done THEN NULL ELSE c.claim_owner END,
        claim_until = CASE WHEN input.done THEN NULL ELSE c.claim_until END
    FROM input WHERE c.key = input.key AND c.end_seq = input.old_end AND c.present
        AND (input.first_seq IS NULL OR input.first_seq = c.first_seq) AND input.birth IN (0, c.id)
        AND (c.claim_owner IS NULL OR c.claim_owner = input.owner OR c.claim_until <= clock_timestamp())
    RETURNING c.id, c.key
)/* begin */, done AS (
    SELECT id, key FROM updated/* begun */
), added AS (
    INSERT INTO rasa_core_api_blocks (conversation, seq, count, at, events)
    SELECT done.id, b.seq, b.count, b.at, b.events
    FROM unnest(%(owners)s::bytea[], %(seqs)s::bigint[], %(counts)s::int[], %(times)s::float8[],
        string_to_array(%(texts)s, chr(30))) AS b(key, seq, count, at, events) JOIN done ON done.key = b.key
)/* notes */
SELECT key, id FROM done
"""

# Where some of them begin. One that was only claimed gets a new id: its place in the list is where it begins. The lock
# comes before those of rows, so that nobody who waits for a row keeps out whoever lists.
_BEGIN = """, begun AS (
    UPDATE rasa_core_api_conversations c SET id = DEFAULT, end_seq = input.new_end, present = TRUE,
        claim_owner = CASE WHEN input.done THEN NULL ELSE c.claim_owner END,
        claim_until = CASE WHEN input.done THEN NULL ELSE c.claim_until END
    FROM input WHERE c.key = input.key AND input.old_end = 0 AND c.end_seq = 0 AND NOT c.present
        AND (input.first_seq IS NULL OR input.first_seq = c.first_seq) AND input.birth = 0
        AND (c.claim_owner IS NULL OR c.claim_owner = input.owner OR c.claim_until <= clock_timestamp())
    RETURNING c.id, c.key
), created AS (
    INSERT INTO rasa_core_api_conversations (key, sender_id, first_seq, end_seq)
    SELECT key, sender_id, 0, new_end FROM input WHERE old_end = 0 ORDER BY key
    ON CONFLICT DO NOTHING RETURNING id, key
)"""
_BEGUN = " UNION ALL SELECT id, key FROM begun UNION ALL SELECT id, key FROM created"

#: Names the lock of the list of conversations: "RCal". Whoever begins one shares it until that is committed; whoever
#: lists has it for a moment and knows then that none with a lower id is still to come.
LIST_LOCK = 0x5243616C
SHARE_LIST = f"SELECT pg_advisory_xact_lock_shared({LIST_LOCK})"
_LOCK = f"lock AS MATERIALIZED ({SHARE_LIST}::text AS held), "
_LOCKED = ", lock WHERE held IS NOT NULL"

# what few turns leave: answers, reminders, and the end of one that fired
_NOTES = """, answered AS (
    INSERT INTO rasa_core_api_answers (key, request, base, end_seq, done, answer, until)
    SELECT a.key, a.request, a.base, a.end_seq, a.done, a.answer, clock_timestamp() + a.keep * interval '1 second'
    FROM unnest(%(a_keys)s::bytea[], %(requests)s::text[], %(bases)s::bigint[], %(a_ends)s::bigint[],
        %(a_over)s::bool[], %(answers)s::text[], %(keeps)s::float8[])
        AS a(key, request, base, end_seq, done, answer, keep) JOIN done ON done.key = a.key
    ON CONFLICT (key, request) DO UPDATE SET base = EXCLUDED.base, end_seq = EXCLUDED.end_seq,
        done = EXCLUDED.done, answer = EXCLUDED.answer, until = EXCLUDED.until
), reminded AS (
    INSERT INTO rasa_core_api_reminders (key, name_key, sender_id, name, due, seq, channel)
    SELECT r.* FROM unnest(%(r_keys)s::bytea[], %(name_keys)s::bytea[], %(r_senders)s::text[], %(r_names)s::text[],
        %(dues)s::float8[], %(r_seqs)s::bigint[], %(channels)s::text[])
        AS r(key, name_key, sender_id, name, due, seq, channel) JOIN done ON done.key = r.key
    ON CONFLICT (key, name_key) DO UPDATE SET due = EXCLUDED.due, seq = EXCLUDED.seq, channel = EXCLUDED.channel
), fired AS (
    DELETE FROM rasa_core_api_reminders r
    USING unnest(%(f_keys)s::bytea[], %(f_names)s::bytea[], %(f_seqs)s::bigint[]) AS f(key, name_key, seq), done
    WHERE done.key = f.key AND r.key = f.key AND r.name_key = f.name_key AND r.seq = f.seq
)
"""


def append_statement(begins: bool, notes: bool) -> bytes:
    """The statement for appends of which some begin a conversation, and of which some leave notes."""
    return _APPENDS[begins, notes]


def _append(begins: bool, notes: bool) -> bytes:
    found = _APPEND.replace("/* notes */", _NOTES if notes else "")
    pieces = {"/* lock */": _LOCK, "/* locked */": _LOCKED, "/* begin */": _BEGIN, "/* begun */": _BEGUN}
    for mark, piece in pieces.items():
        found = found.replace(mark, piece if begins else "")
    return found.encode()


_APPENDS = {(begins, notes): _append(begins, notes) for begins in (False, True) for notes in (False, True)}

# Claims need not outlive the machine of the database: this transaction does not wait for its disk.
CLAIM = """
WITH quick AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', TRUE) AS setting
), input AS (
    SELECT u.* FROM unnest(%(keys)s::bytea[], %(names)s::text[], %(ends)s::bigint[], %(owners)s::text[],
        %(seconds)s::float8[], %(births)s::bigint[]) AS u(key, sender_id, old_end, owner, seconds, birth), quick
    WHERE setting IS NOT NULL
), updated AS (
    UPDATE rasa_core_api_conversations c
    SET claim_owner = input.owner, claim_until = clock_timestamp() + input.seconds * interval '1 second'
    FROM input WHERE c.key = input.key AND c.end_seq = input.old_end AND input.birth IN (0, c.id)
        AND (c.claim_owner IS NULL OR c.claim_owner = input.owner OR c.claim_until <= clock_timestamp())
    RETURNING c.key
), created AS (
    INSERT INTO rasa_core_api_conversations (key, sender_id, first_seq, end_seq, present, claim_owner, claim_until)
    SELECT key, sender_id, 0, 0, FALSE, owner, clock_timestamp() + seconds * interval '1 second'
    FROM input WHERE old_end = 0 ORDER BY key
    ON CONFLICT DO NOTHING RETURNING key
)
SELECT key FROM updated UNION ALL SELECT key FROM created
"""

EXPLAIN = """
SELECT key, CASE WHEN present THEN end_seq END, claim_owner,
    coalesce(extract(epoch FROM claim_until - clock_timestamp()), 0)
FROM rasa_core_api_conversations WHERE key = ANY(%s)
"""
