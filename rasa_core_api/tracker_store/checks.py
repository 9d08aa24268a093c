"""Checks and errors that all stores share."""

from __future__ import annotations

from typing import NoReturn

from rasa_core_api.exceptions import InvalidParameter, StoreConflict

#: Longest sender id, in UTF-8 bytes; keys of some databases end there.
MAX_SENDER_ID = 32_768


def conflict(sender_id: str, expected: int, found: int | None) -> NoReturn:
    """Raise the error of a log that does not end where the writer believes."""
    where = "does not exist" if found is None else f"ends at {found}, not at {expected}"
    if found == expected:
        where = "was replaced, or deleted and begun anew"
    raise StoreConflict(
        f"The conversation was changed by somebody else: its log {where}.",
        sender_id=sender_id,
        expected=expected,
        found=found,
    )


def check_sender_id(sender_id: str) -> None:
    """Raise `InvalidParameter` for ids that no database can hold: lone surrogates, NUL, absurd lengths."""
    try:
        raw = sender_id.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidParameter(
            "The sender id holds a lone surrogate.", parameter="sender_id", **{"in": "path"}
        ) from None
    if 0 in raw or len(raw) > MAX_SENDER_ID:
        raise InvalidParameter(
            f"The sender id holds a NUL character or more than {MAX_SENDER_ID} bytes.",
            parameter="sender_id",
            **{"in": "path"},
        )


def unknown_cursor(sender_id: str) -> InvalidParameter:
    """The error of a list that is to go on after a conversation that does not exist."""
    return InvalidParameter("There is no conversation to go on after.", parameter="after", **{"in": "query"})


def position_of(text: str | None) -> int:
    """The number that a position in the feed is, 0 for none. Raises `InvalidParameter`."""
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise no_position()
    return int(text)


def no_position() -> InvalidParameter:
    """The error of a feed that is to go on after what is no position."""
    return InvalidParameter("This is no position in the feed.", parameter="Last-Event-ID", **{"in": "header"})
