"""The stack machine that follows a pickle without doing what it says.

Opcodes are those of Python's `pickletools`, protocols 0 to 5. Where the original imports a name, the machine makes a
`Global`; where it calls something, a `Record`. See `pickles` for what that gives.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

from rasa_core_api.legacy import Damage

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_OPERATIONS = 4_000_000  # opcodes of one pickle: a vocabulary of 400 000 words
MAX_NUMBER = 1_000  # bytes of one number that is written out
MAX_NAME = 1_000  # characters of a module or class name
SMALL_KEY = 1 << 31  # larger integers as keys could be chosen so that all of them collide


class Global:
    """A name that the original program would import."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __repr__(self) -> str:
        return f"<name {self.module}.{self.name}>"


class Record:
    """A call that was not made: what would have been called, with what, and what happened to the result.

    `state` is the argument of the build instruction (None without one), `items` what was appended or added, `pairs`
    what was set by key.
    """

    __slots__ = ("arguments", "called", "items", "keywords", "pairs", "state")

    def __init__(self, called: object, arguments: tuple[Any, ...], keywords: dict[Any, Any] | None = None) -> None:
        self.called = called
        self.arguments = arguments
        self.keywords = keywords
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: dict[Any, Any] = {}

    def __repr__(self) -> str:  # never its contents: they may be endless
        return f"<record of {name_of(self.called)}>"


class Opaque:
    """A dictionary key that is not hashed by its value."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def name_of(value: object) -> str:
    """The last part of a name that would be imported; empty for anything else.

    dill and its kin fetch names of compiled modules, such as numpy's `scalar`, by a call of their own.
    """
    if isinstance(value, Record) and isinstance(value.called, Global) and value.called.name in ("getattr", "_get_attr"):
        return value.arguments[1] if len(value.arguments) == 2 and isinstance(value.arguments[1], str) else ""
    return value.name.rsplit(".", 1)[-1] if isinstance(value, Global) else ""


def _key(value: Any) -> Any:
    # the hash of text and bytes is salted; that of other values could be chosen, or take for ever (nested tuples)
    kind = type(value)
    if kind is str or kind is bytes or kind is bool or value is None:
        return value
    if kind is int and -SMALL_KEY < value < SMALL_KEY:
        return value
    return value if isinstance(value, (Global, Record, Opaque)) else Opaque(value)


_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", "'": "'", '"': '"'}


def _unescape(found: re.Match[str]) -> str:
    if found[1]:
        return chr(int(found[1], 16))
    if found[2] not in _ESCAPED:
        raise Damage("an unknown escape in a string")
    return _ESCAPED[found[2]]


_FLOAT = struct.Struct(">d")
_U2 = struct.Struct("<H")
_I4 = struct.Struct("<i")
_U4 = struct.Struct("<I")
_U8 = struct.Struct("<Q")


class Machine:
    """The stack machine. Every length is compared with the data that is left before anything is made from it."""

    __slots__ = ("data", "marks", "memo", "position", "stack")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, operations: int = MAX_OPERATIONS) -> Any:
        """What the pickle leaves on the stack; Damage after so many operations."""
        data, table = self.data, _TABLE
        for _ in range(operations):
            code = data[self.position]
            self.position += 1
            if code == 46:  # '.'
                return self.stack.pop()
            operation = table[code]
            if operation is None:
                raise Damage(f"the instruction {code:#04x} is not allowed here")
            operation(self)
        raise Damage(f"more than {operations} instructions")

    # reading

    def take(self, length: int) -> bytes:
        start = self.position
        end = start + length
        if length < 0 or end > len(self.data):
            raise Damage("the pickle is cut short")
        self.position = end
        return self.data[start:end]

    def byte(self) -> int:
        value = self.data[self.position]
        self.position += 1
        return value

    def number(self, form: struct.Struct) -> int:
        (value,) = form.unpack_from(self.data, self.position)
        self.position += form.size
        return int(value)

    def line(self, limit: int) -> bytes:
        end = self.data.find(b"\n", self.position, self.position + limit + 1)
        if end < 0:
            raise Damage("a line without an end, or too long")
        start, self.position = self.position, end + 1
        return self.data[start:end]

    def decimal(self) -> int:
        return int(self.line(MAX_NUMBER))

    # writing

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        stack = self.stack
        if mark > len(stack):
            raise Damage("the pickle is damaged")
        items = stack[mark:]
        del stack[mark:]
        return items

    def do_mark(self) -> None:
        self.marks.append(len(self.stack))

    def do_pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def do_pop_mark(self) -> None:
        self.since_mark()

    def do_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def do_proto(self) -> None:
        if self.byte() > 5:
            raise Damage("a pickle protocol newer than 5")

    def do_frame(self) -> None:
        self.number(_U8)  # only announces how much to read ahead; there is nothing to read ahead here

    # plain values

    def do_none(self) -> None:
        self.stack.append(None)

    def do_true(self) -> None:
        self.stack.append(True)

    def do_false(self) -> None:
        self.stack.append(False)

    def do_int(self) -> None:
        line = self.line(MAX_NUMBER)
        self.stack.append({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))

    def do_long(self) -> None:
        self.stack.append(int(self.line(MAX_NUMBER).removesuffix(b"L")))

    def do_binint(self) -> None:
        self.stack.append(self.number(_I4))

    def do_binint1(self) -> None:
        self.stack.append(self.byte())

    def do_binint2(self) -> None:
        self.stack.append(self.number(_U2))

    def do_long1(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.byte()), "little", signed=True))

    def do_long4(self) -> None:
        length = self.number(_I4)
        if length > MAX_NUMBER:
            raise Damage("a number that is too long")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def do_float(self) -> None:
        self.stack.append(float(self.line(MAX_NUMBER)))

    def do_binfloat(self) -> None:
        (value,) = _FLOAT.unpack_from(self.data, self.position)
        self.position += 8
        self.stack.append(value)

    # text and bytes

    def do_string(self) -> None:
        line = self.line(len(self.data)).strip().decode("latin-1")
        if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0]:
            raise Damage("a string without quotes")
        self.stack.append(_ESCAPE.sub(_unescape, line[1:-1]))

    def do_binstring(self) -> None:
        self.stack.append(self.take(self.number(_I4)).decode("latin-1"))

    def do_short_binstring(self) -> None:
        self.stack.append(self.take(self.byte()).decode("latin-1"))

    def do_unicode(self) -> None:
        self.stack.append(self.line(len(self.data)).decode("raw-unicode-escape"))

    def do_binunicode(self) -> None:
        self.stack.append(self.take(self.number(_U4)).decode("utf-8", "surrogatepass"))

    def do_binunicode8(self) -> None:
        self.stack.append(self.take(self.number(_U8)).decode("utf-8", "surrogatepass"))

    def do_short_binunicode(self) -> None:
        self.stack.append(self.take(self.byte()).decode("utf-8", "surrogatepass"))

    def do_binbytes(self) -> None:
        self.stack.append(self.take(self.number(_U4)))

    def do_binbytes8(self) -> None:
        self.stack.append(self.take(self.number(_U8)))

    def do_short_binbytes(self) -> None:
        self.stack.append(self.take(self.byte()))

    # containers

    def do_tuple(self) -> None:
        self.stack.append(tuple(self.since_mark()))

    def do_empty_tuple(self) -> None:
        self.stack.append(())

    def do_tuple1(self) -> None:
        self.stack[-1] = (self.stack[-1],)

    def do_tuple2(self) -> None:
        last = self.stack.pop()
        self.stack[-1] = (self.stack[-1], last)

    def do_tuple3(self) -> None:
        last = self.stack.pop()
        second = self.stack.pop()
        self.stack[-1] = (self.stack[-1], second, last)

    def do_empty_list(self) -> None:
        self.stack.append([])

    def do_list(self) -> None:
        self.stack.append(self.since_mark())

    def do_empty_dict(self) -> None:
        self.stack.append({})

    def do_dict(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_pairs(items)

    def do_append(self) -> None:
        item = self.stack.pop()
        self.extend([item])

    def do_appends(self) -> None:
        self.extend(self.since_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise Damage("items for something that is not a list")

    def do_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self.set_pairs([key, value])

    def do_setitems(self) -> None:
        self.set_pairs(self.since_mark())

    def set_pairs(self, items: list[Any]) -> None:
        target = self.stack[-1]
        pairs = target.pairs if isinstance(target, Record) else target
        if not isinstance(pairs, dict) or len(items) % 2:
            raise Damage("pairs for something that is not a dictionary, or half a pair")
        for index in range(0, len(items), 2):
            pairs[_key(items[index])] = items[index + 1]

    # memory

    def remember(self, index: int) -> None:
        if index < 0:
            raise Damage("the pickle is damaged")
        self.memo[index] = self.stack[-1]

    def do_put(self) -> None:
        index = self.decimal()
        if index >= 1 << 32:
            raise Damage("the pickle is damaged")
        self.remember(index)

    def do_binput(self) -> None:
        self.memo[self.byte()] = self.stack[-1]

    def do_long_binput(self) -> None:
        self.remember(self.number(_U4))

    def do_memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self) -> None:
        self.stack.append(self.memo[self.decimal()])

    def do_binget(self) -> None:
        self.stack.append(self.memo[self.byte()])

    def do_long_binget(self) -> None:
        self.stack.append(self.memo[self.number(_U4)])

    # names and calls

    def name(self) -> str:
        return self.line(MAX_NAME).decode("utf-8")

    def do_global(self) -> None:
        module = self.name()
        self.stack.append(Global(module, self.name()))

    def do_stack_global(self) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str) or len(name) + len(module) > MAX_NAME:
            raise Damage("a name that is no text, or too long")
        self.stack.append(Global(module, name))

    def call(self, called: object, arguments: object, keywords: object = None) -> None:
        if not isinstance(called, (Global, Record)) or not isinstance(arguments, tuple):
            raise Damage("a call of something that is no name")
        if keywords is not None and not isinstance(keywords, dict):
            raise Damage("keywords that are no dictionary")
        self.stack.append(Record(called, arguments, keywords))

    def do_reduce(self) -> None:
        arguments = self.stack.pop()
        self.call(self.stack.pop(), arguments)

    def do_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        arguments = self.stack.pop()
        self.call(self.stack.pop(), arguments, keywords)

    def do_inst(self) -> None:
        module = self.name()
        called = Global(module, self.name())
        self.call(called, tuple(self.since_mark()))

    def do_obj(self) -> None:
        called, *arguments = self.since_mark()
        self.call(called, tuple(arguments))

    def do_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Record):
            raise Damage("a state for something that was not built by a call")
        target.state = state


_OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    b"(": Machine.do_mark,
    b"0": Machine.do_pop,
    b"1": Machine.do_pop_mark,
    b"2": Machine.do_dup,
    b"F": Machine.do_float,
    b"I": Machine.do_int,
    b"J": Machine.do_binint,
    b"K": Machine.do_binint1,
    b"L": Machine.do_long,
    b"M": Machine.do_binint2,
    b"N": Machine.do_none,
    b"R": Machine.do_reduce,
    b"S": Machine.do_string,
    b"T": Machine.do_binstring,
    b"U": Machine.do_short_binstring,
    b"V": Machine.do_unicode,
    b"X": Machine.do_binunicode,
    b"a": Machine.do_append,
    b"b": Machine.do_build,
    b"c": Machine.do_global,
    b"d": Machine.do_dict,
    b"}": Machine.do_empty_dict,
    b"e": Machine.do_appends,
    b"g": Machine.do_get,
    b"h": Machine.do_binget,
    b"i": Machine.do_inst,
    b"j": Machine.do_long_binget,
    b"l": Machine.do_list,
    b"]": Machine.do_empty_list,
    b"o": Machine.do_obj,
    b"p": Machine.do_put,
    b"q": Machine.do_binput,
    b"r": Machine.do_long_binput,
    b"s": Machine.do_setitem,
    b"t": Machine.do_tuple,
    b")": Machine.do_empty_tuple,
    b"u": Machine.do_setitems,
    b"G": Machine.do_binfloat,
    b"\x80": Machine.do_proto,
    b"\x81": Machine.do_reduce,  # a new object of a class: recorded like a call of it
    b"\x85": Machine.do_tuple1,
    b"\x86": Machine.do_tuple2,
    b"\x87": Machine.do_tuple3,
    b"\x88": Machine.do_true,
    b"\x89": Machine.do_false,
    b"\x8a": Machine.do_long1,
    b"\x8b": Machine.do_long4,
    b"B": Machine.do_binbytes,
    b"C": Machine.do_short_binbytes,
    b"\x8c": Machine.do_short_binunicode,
    b"\x8d": Machine.do_binunicode8,
    b"\x8e": Machine.do_binbytes8,
    b"\x8f": Machine.do_empty_list,  # a set
    b"\x90": Machine.do_appends,  # members of a set
    b"\x91": Machine.do_list,  # a frozen set
    b"\x92": Machine.do_newobj_ex,
    b"\x93": Machine.do_stack_global,
    b"\x94": Machine.do_memoize,
    b"\x95": Machine.do_frame,
    b"\x96": Machine.do_binbytes8,  # a byte array
}
# left out: P Q (persistent names), 0x82-0x84 (extension codes), 0x97 0x98 (buffers that are not in the file)
_TABLE: list[Callable[[Machine], None] | None] = [_OPERATIONS.get(bytes([code])) for code in range(256)]
