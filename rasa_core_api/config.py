"""YAML in and out: files of operators and of models as plain JSON values.

Scalars follow YAML 1.1 as the historical releases read them (`yes`, `on` and `y` are booleans, `012` is
octal, `1:30` is 90), except that dates stay texts and keys are always texts. Reading works on the events of
libyaml, so that no tag ever builds an object and neither nesting nor aliases exhaust the process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration

#: Files larger than this are refused, in bytes.
MAX_FILE_SIZE = 64 * 1024 * 1024
MAX_DEPTH = 100
#: Values of one document, those that aliases repeat included.
MAX_VALUES = 2_000_000

_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_SPECIAL = _TRUE | _FALSE | _NULL
#: What a plain scalar that is a number begins with.
_NUMERIC = frozenset("0123456789+-.")
_INTEGER = re.compile(
    r"[-+]?(?:0b(?P<binary>[01_]*[01][01_]*)|0x(?P<hexadecimal>[0-9a-fA-F_]*[0-9a-fA-F][0-9a-fA-F_]*)"
    r"|0(?P<octal>[0-7_]+)|(?P<decimal>0|[1-9][0-9_]*)|(?P<sixties>[1-9][0-9_]*(?::[0-5]?[0-9])+))"
)
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)"
)
_FLOAT_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*")
_INFINITY = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NOT_A_NUMBER = frozenset((".nan", ".NaN", ".NAN"))
_LONGEST_NUMBER = 400

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_TAG = "tag:yaml.org,2002:"
_TAGGED: Mapping[str, tuple[type, ...]] = {
    _TAG + "int": (int,),
    _TAG + "float": (int, float),
    _TAG + "bool": (bool,),
    _TAG + "null": (type(None),),
}
_MERGE = object()


def read_yaml_file(path: str | Path, environ: Mapping[str, str] | None = None, quoted: bool = True) -> JSON:
    """The value of the one document in a UTF-8 file, None where it is empty.

    `${NAME}` in values is replaced from `environ`, which is given only for files that the operator names on
    the command line; a replaced value is a text. Without `quoted` only in values that stand without quotes, as 0.12 to
    0.14 did: what bots say may hold `${price}`. Raises `InvalidConfiguration` with file, line and reason.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_SIZE + 1)  # its size is asked of nobody: devices and pipes have none
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidConfiguration(f"{path}: {reason}", file=str(path)) from None
    if len(raw) > MAX_FILE_SIZE:
        raise InvalidConfiguration(f"{path}: larger than {MAX_FILE_SIZE} bytes", file=str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidConfiguration(f"{path}, line {line}: this is not UTF-8", file=str(path), line=line) from None
    return read_yaml_text(text, str(path), environ, quoted)


def read_yaml_text(text: str, source: str, environ: Mapping[str, str] | None = None, quoted: bool = True) -> JSON:
    """Like `read_yaml_file` for a text; `source` names it in errors."""
    return _Reader(text, source, environ, quoted).document()


class _Reader:
    """Builds the value of one document from the events of its parser."""

    def __init__(self, text: str, source: str, environ: Mapping[str, str] | None, quoted: bool) -> None:
        self._text = text
        self._source = source
        self._environ = environ
        self._quoted = quoted
        self._anchors: dict[str, tuple[JSON, int]] = {}
        self._values = 0

    def _error(self, reason: str, line: int | None = None) -> InvalidConfiguration:
        if line is None:
            return InvalidConfiguration(f"{self._source}: {reason}", file=self._source)
        return InvalidConfiguration(f"{self._source}, line {line + 1}: {reason}", file=self._source, line=line + 1)

    def _events(self) -> Iterator[Any]:
        from ruamel.yaml import cyaml
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            parser = cyaml.__dict__["CParser"](self._text)  # the package exports it without declaring it
            while (event := parser.get_event()) is not None:
                yield event
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = str(error.problem or error.context or "this is not YAML")
            if "':'" in reason:
                reason += " (put texts that hold a colon in quotes)"
            raise self._error(reason, None if mark is None else mark.line) from None
        except YAMLError as error:
            raise self._error(str(error).split("\n")[0]) from None
        except UnicodeError:
            raise self._error("a lone surrogate cannot be read") from None

    def document(self) -> JSON:
        """The only document's value."""
        result: JSON = None
        documents = 0
        stack: list[_Node] = []
        for event in self._events():
            kind = type(event).__name__
            if kind == "ScalarEvent":
                value: JSON = event.value
                self._count(1, event)
                node = stack[-1] if stack else None
                if node is not None and node.wants_key:
                    value = self._key(event)
                else:
                    value = self._scalar(event)
                if event.anchor is not None:
                    self._anchors[event.anchor] = (value, 1)
            elif kind in ("MappingStartEvent", "SequenceStartEvent"):
                self._open(event, kind, stack)
                continue
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                closed = stack.pop()
                value = closed.value
                if closed.anchor is not None:
                    self._anchors[closed.anchor] = (value, self._values - closed.began)
            elif kind == "AliasEvent":
                value = self._alias(event)
            elif kind == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    raise self._error("a second document begins here", event.start_mark.line)
                continue
            else:
                continue
            if stack:
                self._add(stack[-1], value, event)
            else:
                result = value
        return result

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise self._error(f"more than {MAX_VALUES} values", event.start_mark.line)

    def _open(self, event: Any, kind: str, stack: list[_Node]) -> None:
        if len(stack) >= MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels", event.start_mark.line)
        if stack and stack[-1].wants_key:
            raise self._error("a key must be a text", event.start_mark.line)
        mapping = kind == "MappingStartEvent"
        expected = "map" if mapping else "seq"
        if event.tag not in (None, "!", _TAG + expected):
            raise self._bad_tag(event)
        self._count(1, event)
        stack.append(_Node({} if mapping else [], event.anchor, self._values - 1))

    def _alias(self, event: Any) -> JSON:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise self._error(f"the alias *{event.anchor} stands for nothing yet", event.start_mark.line)
        value, size = known
        self._count(size, event)
        return deepcopy(value)

    def _add(self, node: _Node, value: JSON, event: Any) -> None:
        target = node.value
        if isinstance(target, list):
            target.append(value)
        elif node.wants_key:
            if value is not _MERGE and not isinstance(value, str):
                raise self._error("a key must be a text", event.start_mark.line)
            if value is not _MERGE and value in node.own:
                raise self._error(f"the key {value!r} is there twice", event.start_mark.line)
            node.key = value
            node.wants_key = False
        else:
            node.wants_key = True
            if node.key is _MERGE:
                self._merge(node, value, event)
            else:
                target[node.key] = value
                node.own.add(node.key)

    def _merge(self, node: _Node, value: JSON, event: Any) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self._error("'<<' takes mappings", event.start_mark.line)
            for key, item in part.items():
                node.value.setdefault(key, item)

    def _key(self, event: Any) -> JSON:
        if event.value == "<<" and not event.style and event.tag is None:
            return _MERGE
        return event.value

    def _scalar(self, event: Any) -> JSON:
        text: str = event.value
        if self._environ is not None and "${" in text and (self._quoted or not event.style):
            return self._replaced(text, event)
        tag = event.tag
        if tag is None:
            return plain_value(text) if event.implicit[0] else text
        if tag in ("!", _TAG + "str"):
            return text
        value = plain_value(text)
        kinds = _TAGGED.get(tag)
        if kinds is None:
            raise self._bad_tag(event)
        if type(value) not in kinds:
            raise self._error(f"this is no {tag.removeprefix(_TAG)}", event.start_mark.line)
        return float(value) if tag == _TAG + "float" else value

    def _bad_tag(self, event: Any) -> InvalidConfiguration:
        return self._error(f"the tag {event.tag} is not allowed here: only plain data is read", event.start_mark.line)

    def _replaced(self, text: str, event: Any) -> str:
        environ = self._environ
        assert environ is not None

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if _VARIABLE_NAME.fullmatch(name) is None:
                raise self._error(f"{match[0]} names no environment variable", event.start_mark.line)
            value = environ.get(name)
            if value is None:
                raise self._error(f"the environment variable {name} is not set", event.start_mark.line)
            return value

        return _VARIABLE.sub(value_of, text)


class _Node:
    """A mapping or sequence under construction."""

    __slots__ = ("anchor", "began", "key", "own", "value", "wants_key")

    def __init__(self, value: JSON, anchor: str | None, began: int) -> None:
        self.value = value
        self.anchor = anchor
        self.began = began  # values counted before this one
        self.key: Any = None
        self.own: set[str] = set()  # keys that were not merged
        self.wants_key = isinstance(value, dict)


def plain_value(text: str) -> JSON:
    """What an unquoted scalar stands for in YAML 1.1."""
    if text in _SPECIAL:
        return None if text in _NULL else text in _TRUE
    if text[0] not in _NUMERIC or len(text) > _LONGEST_NUMBER:
        return text
    match = _INTEGER.fullmatch(text)
    if match is not None:
        return _integer(match)
    if _FLOAT.fullmatch(text):
        try:
            return float(text.replace("_", ""))
        except ValueError:
            return text
    if _INFINITY.fullmatch(text):
        return -math.inf if text[0] == "-" else math.inf
    if text in _NOT_A_NUMBER:
        return math.nan
    if _FLOAT_SIXTIES.fullmatch(text):
        return _sixties(text)
    return text


def _integer(match: re.Match[str]) -> JSON:
    kind = match.lastgroup
    assert kind is not None
    digits = match[kind].replace("_", "")
    if kind == "sixties":
        value = int(_sixties(match[0].lstrip("+-")))
    else:
        value = int(digits or "0", {"binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16}[kind])
    return -value if match[0][0] == "-" else value


def _sixties(text: str) -> float:
    value = 0.0
    for part in text.lstrip("+-").replace("_", "").split(":"):
        value = value * 60 + float(part)
    return -value if text[0] == "-" else value


# --- writing -------------------------------------------------------------------------------------------

#: Texts that need no quotes: a letter first, and nothing that could be an indicator.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.@+-]*(?: [A-Za-z0-9_/.@+-]+)*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TO_ESCAPE = re.compile('["\\\\\x00-\x1f\x7f-\x9f\xa0\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]')


def dump_yaml(value: JSON) -> str:
    """YAML 1.1 in block style with sorted keys, which any YAML reader reads back as the same value."""
    lines = ["%YAML 1.1", "---"]
    if isinstance(value, (dict, list)) and value:
        _write(value, "", lines)
    else:
        lines.append(_flow(value))
    return "\n".join(lines) + "\n"


def _write(value: dict[str, JSON] | list[JSON], indent: str, lines: list[str]) -> None:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)) and item:
                start = len(lines)
                _write(item, indent + "  ", lines)
                lines[start] = f"{indent}- {lines[start][len(indent) + 2 :]}"
            else:
                lines.append(f"{indent}- {_flow(item)}")
        return
    for key in sorted(value):
        item = value[key]
        if isinstance(item, dict) and item:
            lines.append(f"{indent}{_text(key)}:")
            _write(item, indent + "  ", lines)
        elif isinstance(item, list) and item:
            lines.append(f"{indent}{_text(key)}:")
            _write(item, indent, lines)
        else:
            lines.append(f"{indent}{_text(key)}: {_flow(item)}")


def _flow(value: JSON) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _text(value)
    return "{}" if isinstance(value, dict) else "[]"


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text not in _SPECIAL:
        return text
    return '"' + _TO_ESCAPE.sub(_escaped, text) + '"'


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    known = _ESCAPES.get(character)
    if known is not None:
        return known
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
