"""Large memories of turns, read in pieces: one call of the JSON reader would hold the interpreter for their length.

A model is loaded beside the reactor, in a thread. A thread that runs Python code makes way every few milliseconds,
a C function does not; so no call here works on more than a piece.
"""

from __future__ import annotations

import json
import re

from rasa_core_api.constants import JSON

#: Bytes of a file up to which it is read in one go (a few milliseconds).
SMALL = 1 << 20
_AT_ONCE = 1000  # entries of a piece

_TEXT = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_ENTRY = rf"\s*{_TEXT}\s*:\s*(?:-?[0-9]+|null|{_TEXT})\s*"
_ENTRIES = re.compile(rf"(?:{_ENTRY},){{1,{_AT_ONCE}}}")
_LAST = re.compile(rf"{_ENTRY}(?=\}})")
_LOOKUP = re.compile(r'"lookup"\s*:\s*\{')


def decode_memory(raw: bytes) -> JSON:
    """The JSON document; the member `lookup` (texts to numbers, texts or nulls) is read in pieces where it is large.

    Raises ValueError like `json.loads`.
    """
    if len(raw) <= SMALL:
        return json.loads(raw)
    text = raw.decode("utf-8")
    head = _LOOKUP.search(text)
    if head is None:
        return json.loads(text)
    lookup: dict[str, JSON] = {}
    position = head.end()
    while (piece := _ENTRIES.match(text, position)) is not None:
        position = piece.end()
        lookup.update(json.loads(f"{{{text[piece.start() : position - 1]}}}"))
    last = _LAST.match(text, position)
    if last is None:
        return json.loads(text)  # unusual, or no JSON
    lookup.update(json.loads(f"{{{last[0]}}}"))
    rest = json.loads(text[: head.end()] + text[last.end() :])
    if not isinstance(rest, dict) or rest.get("lookup") != {}:
        return json.loads(text)
    rest["lookup"] = lookup
    return rest
