"""Pickles read as inert records.

A pickle is a program for a small stack machine. The machine of `pickle_machine` follows it
opcode by opcode, but where the original imports a name or calls something, it only notes
down which name was meant and with which arguments. So a pickle can describe anything and do nothing.

What comes out consists of: None, bool, int, float, str, bytes, tuple, list, dict, and

- `Global`: a name that the original would import,
- `Record`: something the original would build by a call, with all that was done to it afterwards,
- `Opaque`: a dictionary key of another kind than text, bytes, small integer or None.

Sets are lists here, byte arrays are bytes. Text that Python 2 wrote as a byte string is decoded as Latin-1, which
loses nothing. Trees may share parts or contain themselves: walk them only along names that you know.
"""

from __future__ import annotations

from typing import Any

from rasa_core_api.legacy import FAILURES, Damage, damaged
from rasa_core_api.legacy.pickle_machine import MAX_OPERATIONS, Global, Machine, Opaque, Record, name_of

__all__ = ["Global", "Opaque", "Record", "attribute", "bytes_of", "class_name", "load_inert", "mapping_of", "name_of"]

MAX_SIZE = 256 << 20  # bytes of one pickle


def load_inert(data: bytes, source: str, operations: int = MAX_OPERATIONS) -> Any:
    """What the pickle describes, built of the plain values and records named at the top of this module.

    Only the first pickle of `data` is read. Raises UnreadableFile (`source` names the file) for damaged data,
    persistent names, extension codes, buffers outside of the pickle and more than so many operations.
    """
    if len(data) > MAX_SIZE:
        raise damaged(source, f"is larger than {MAX_SIZE} bytes")
    machine = Machine(data)
    try:
        return machine.run(operations)
    except FAILURES as error:
        reason = str(error) if isinstance(error, Damage) else "the pickle is damaged"
        raise damaged(source, f"{reason} (near byte {machine.position})") from error


def class_name(value: object) -> str | None:
    """The bare class name of a record, None if it is not one made from a class."""
    if not isinstance(value, Record):
        return None
    made_from: object = value.called
    if name_of(made_from) in ("_reconstructor", "__newobj__", "__newobj_ex__", "_reconstruct") and value.arguments:
        made_from = value.arguments[0]
    return name_of(made_from)


def attribute(value: object, name: str) -> Any:
    """The attribute that unpickling would have given the object; KeyError if there is none, or no such object."""
    if isinstance(value, Record):
        state = value.state
        # two dictionaries: ordinary attributes and those in slots
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
            if isinstance(part, dict) and name in part:
                return part[name]
    raise KeyError(name)


def mapping_of(value: object) -> dict[Any, Any]:
    """A dictionary, or what was set by key on a record of a dictionary-like class; else Damage."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Record) and value.state is None:
        return value.pairs
    raise Damage("a dictionary was expected")


def bytes_of(value: object) -> bytes:
    """Bytes, in any of the spellings that protocols have for them; else Damage."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):  # a byte string of Python 2
        return _latin1(value)
    if isinstance(value, Record) and name_of(value.called) in ("bytes", "bytearray"):
        if not value.arguments:
            return b""
        value = value.arguments[0]
        if isinstance(value, (bytes, str)):
            return bytes_of(value)
    if isinstance(value, Record) and name_of(value.called) == "encode" and len(value.arguments) == 2:
        text = value.arguments[0]
        if isinstance(text, str):
            return _latin1(text)
    raise Damage("a byte string was expected")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise Damage("a byte string was expected") from error
