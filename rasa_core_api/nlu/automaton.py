"""Regular expressions searched in linear time.

The standard engine backtracks: `(a+)+$` on forty letters takes longer than anybody waits. This one follows all
possibilities side by side (Thompson's construction, with the threads kept in order of preference so that the
match is the one Python's engine reports) and remembers the steps it has already worked out (a lazily built
automaton). Each character of the text costs at most the size of the program, whatever the expression, and what new
steps cost in one text is bounded besides.

Look-around is understood where it tests a single character, which covers `(?<!\\d)` and its like. What cannot be
expressed (references to groups, longer look-around, atomic and possessive groups, programs beyond `MAX_PROGRAM`)
raises `NotRegular`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any

from attrs import Factory, define

from rasa_core_api.nlu.message import finished

MAX_PROGRAM = 20_000  # nodes of one program
MAX_LOOKED_AT = 4  # characters for each of a text, for all matches in it
MAX_MOVES = 20_000  # remembered steps of one program; all are dropped when there are more
MAX_WORK = 100_000  # nodes that are visited to work out new steps, for one text: about 20 milliseconds

#: The parser of the standard library: a tree of (operation, argument) pairs.
parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_STEP = 4_000  # characters of one step where all moves are known: about a millisecond
_STEP_WORK = 5_000  # nodes of one step that are visited to work out moves
_STEP_SEARCHES = 400  # characters of one step where many searches start

_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_TYPE_FLAGS = re.ASCII | re.LOCALE | re.UNICODE
_KEPT_FLAGS = re.ASCII | re.IGNORECASE | re.DOTALL | re.UNICODE
_LAST_NEWLINE = "\n$"  # the symbol of a newline that ends the text, before which `$` matches
_END = ""

CharTest = Callable[[str], bool]  # of one character
Around = Callable[[tuple[bool, ...], str], bool]  # of what is known of the character before, and the next symbol


class NotRegular(ValueError):
    """The expression needs an engine that backtracks, or too large a program; the text says which part."""


def combined_flags(flags: int, added: int, removed: int) -> int:
    """The flags inside `(?aiLmsux-imsx:...)`."""
    if added & _TYPE_FLAGS:
        flags &= ~int(_TYPE_FLAGS)
    return (flags | added) & ~removed


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


def char_source(operation: str, argument: Any) -> str | None:
    """The expression of a tree node that matches exactly one character; None for other nodes."""
    if operation == "LITERAL":
        return _escaped(argument)
    if operation == "NOT_LITERAL":
        return f"[^{_escaped(argument)}]"
    if operation == "ANY":
        return "."
    if operation == "CATEGORY":
        return _CATEGORIES[str(argument)]
    if operation != "IN":
        return None
    parts = []
    for name, value in argument:
        kind = str(name)
        if kind == "NEGATE":
            parts.append("^")
        elif kind == "LITERAL":
            parts.append(_escaped(value))
        elif kind == "RANGE":
            parts.append(f"{_escaped(value[0])}-{_escaped(value[1])}")
        else:
            parts.append(_CATEGORIES[str(value)])
    return f"[{''.join(parts)}]"


@define(slots=True)
class _Node:
    """One instruction: `char` consumes, `around` tests, `match` reports, `split` and `loop` go on at several places."""

    kind: str
    targets: list[int] = Factory(list)  # in order of preference; a loop's last resort is `leave`
    leave: int = -1
    char: CharTest | None = None
    around: Around | None = None


@define(slots=True, eq=False)
class _State:
    """Where the threads stand after a character, best first, and the steps from here that are worked out."""

    threads: tuple[int, ...]
    before: tuple[bool, ...]
    searching: bool  # no match yet: a new thread starts at every place
    moves: dict[str, tuple[_State, tuple[int, ...], int]] = Factory(dict)


class Automaton:
    """A compiled expression. `tree` and `flags` are what the standard parser made of it."""

    def __init__(self, tree: Any, flags: int) -> None:
        self._nodes: list[_Node] = []
        self._behind: list[CharTest] = []
        self._behind_keys: dict[str, int] = {}
        self._chars: dict[tuple[str, int], CharTest] = {}
        self._start = self._compile(tree, self._add(_Node("match")), flags)
        self._states: dict[tuple[tuple[int, ...], tuple[bool, ...], bool], _State] = {}
        self._moves = 0

    def search(self, text: str, position: int = 0) -> tuple[int, int] | None:
        """Where `re.search` finds the first match at or after `position`, as (start, end).

        Nothing is found behind the place where `MAX_WORK` is used up, which takes a large expression and a text made
        for it.
        """
        return finished(self.search_steps(text, position))

    def search_steps(self, text: str, position: int = 0) -> Generator[None, None, tuple[int, int] | None]:
        """The same in steps of a millisecond or two; other texts may be searched between them."""
        span, _ = yield from self._search(text, position, [0])
        return span

    def spans(self, text: str) -> list[tuple[int, int]]:
        """All matches without overlap, as far as `MAX_LOOKED_AT` allows.

        Each search may have to look at the rest of the text, so all of them together could take quadratic time. After
        an empty match the next is looked for one character on. `MAX_WORK` holds for all of them.
        """
        return finished(self.span_steps(text))

    def span_steps(self, text: str) -> Generator[None, None, list[tuple[int, int]]]:
        """The same in steps of a millisecond or two; other texts may be searched between them."""
        work = [0]
        found: list[tuple[int, int]] = []
        position = looked_at = paused = 0
        while position <= len(text) and looked_at <= MAX_LOOKED_AT * len(text):
            span, stopped = yield from self._search(text, position, work)
            if span is None:
                break
            found.append(span)
            looked_at += stopped - position + 1
            if looked_at - paused > _STEP_SEARCHES:
                paused = looked_at
                yield
            position = span[1] if span[1] > span[0] else span[1] + 1
        return found

    def _search(
        self, text: str, position: int, work: list[int]
    ) -> Generator[None, None, tuple[tuple[int, int] | None, int]]:
        """The first match, and the place where it was certain; `work` counts the nodes that were visited for it."""
        before = text[position - 1] if position else ""
        state = self._state((), self._known(before), True)
        starts: list[int] = []
        best = None
        place = position
        last = len(text) - 1
        pause = position + _STEP
        paused_work = work[0]
        for place in range(position, last + 2):
            if place >= pause or work[0] - paused_work > _STEP_WORK:
                pause, paused_work = place + _STEP, work[0]
                yield
            if place > last:
                symbol = _END
            else:
                symbol = text[place]
                if place == last and symbol == "\n":
                    symbol = _LAST_NEWLINE
            move = state.moves.get(symbol)
            if move is None:
                if work[0] > MAX_WORK:
                    return None, last + 1
                move = self._step(state, symbol, work)
            following, origins, matched = move
            starts.append(place)
            if matched >= 0:
                best = (starts[matched], place)
            if not origins and not following.searching:
                break
            starts = [starts[origin] for origin in origins]
            state = following
        return best, place

    # compiling: every part is built with the number of the node that follows it

    def _add(self, node: _Node) -> int:
        if len(self._nodes) >= MAX_PROGRAM:
            raise NotRegular("it is too large")
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _compile(self, tree: Iterable[Any], following: int, flags: int) -> int:
        for name, argument in reversed(list(tree)):
            following = self._compile_one(str(name), argument, following, flags)
        return following

    def _compile_one(self, name: str, argument: Any, following: int, flags: int) -> int:
        source = char_source(name, argument)
        if source is not None:
            return self._add(_Node("char", [following], char=self._char_test(source, flags)))
        if name == "BRANCH":
            return self._add(_Node("split", [self._compile(branch, following, flags) for branch in argument[1]]))
        if name == "SUBPATTERN":
            _, added, removed, inner = argument
            return self._compile(inner, following, combined_flags(flags, added, removed))
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(argument, following, flags, greedy=name == "MAX_REPEAT")
        if name == "AT":
            return self._add(_Node("around", [following], around=self._at(str(argument), flags)))
        if name in ("ASSERT", "ASSERT_NOT"):
            return self._add(_Node("around", [following], around=self._look(argument, name == "ASSERT", flags)))
        raise NotRegular(f"{name.lower().replace('_', ' ')} needs an engine that backtracks")

    def _repeat(self, argument: Any, following: int, flags: int, greedy: bool) -> int:
        least, most, body = argument
        if most == parser.MAXREPEAT:
            loop = self._add(_Node("loop", leave=following))
            entry = self._compile(body, loop, flags)
            self._nodes[loop].targets = [entry, following] if greedy else [following, entry]
            following = loop
        else:
            leave = following
            for _ in range(most - least):
                entry = self._compile(body, following, flags)
                following = self._add(_Node("split", [entry, leave] if greedy else [leave, entry]))
        for _ in range(least):
            following = self._compile(body, following, flags)
        return following

    def _char_test(self, source: str, flags: int) -> CharTest:
        key = (source, flags & _KEPT_FLAGS)
        if key not in self._chars:
            matches = re.compile(source, key[1]).match
            self._chars[key] = lambda char: matches(char) is not None
        return self._chars[key]

    def _behind_test(self, key: str, test: CharTest) -> int:
        if key not in self._behind_keys:
            self._behind_keys[key] = len(self._behind)
            self._behind.append(test)
        return self._behind_keys[key]

    def _at(self, name: str, flags: int) -> Around:
        if name in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
            word = self._char_test(r"\w", flags)
            index = self._behind_test(f"word {flags & re.ASCII}", lambda char: bool(char) and word(char))
            wanted = name == "AT_BOUNDARY"
            return lambda before, after: (before[index] != (after != _END and word(after[0]))) is wanted
        if name == "AT_BEGINNING" and flags & re.MULTILINE:
            index = self._behind_test("line", lambda char: char in ("", "\n"))
            return lambda before, after: before[index]
        if name in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            index = self._behind_test("start", lambda char: not char)
            return lambda before, after: before[index]
        if name == "AT_END" and flags & re.MULTILINE:
            return lambda before, after: after in (_END, "\n", _LAST_NEWLINE)
        if name == "AT_END":
            return lambda before, after: after in (_END, _LAST_NEWLINE)
        if name == "AT_END_STRING":
            return lambda before, after: after == _END
        raise NotRegular(f"{name.lower()} is not known")

    def _look(self, argument: Any, wanted: bool, flags: int) -> Around:
        direction, inner = argument
        items = list(inner)
        while len(items) == 1 and str(items[0][0]) == "SUBPATTERN":
            _, added, removed, inner = items[0][1]
            flags = combined_flags(flags, added, removed)
            items = list(inner)
        source = char_source(str(items[0][0]), items[0][1]) if len(items) == 1 else None
        if source is None:
            raise NotRegular("look-around that tests more than one character needs an engine that backtracks")
        test = self._char_test(source, flags)
        if direction > 0:
            return lambda before, after: (after != _END and test(after[0])) is wanted
        index = self._behind_test(f"{source} {flags & _KEPT_FLAGS}", lambda char: bool(char) and test(char))
        return lambda before, after: before[index] is wanted

    # running

    def _known(self, before: str) -> tuple[bool, ...]:
        return tuple(test(before) for test in self._behind)

    def _state(self, threads: tuple[int, ...], before: tuple[bool, ...], searching: bool) -> _State:
        key = (threads, before, searching)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _State(*key)
        return state

    def _step(self, state: _State, symbol: str, work: list[int]) -> tuple[_State, tuple[int, ...], int]:
        """The state after `symbol`, for each of its threads the thread it comes from, and which one matched."""
        nodes = self._nodes
        seen: set[int] = set()
        threads: list[int] = []
        origins: list[int] = []
        matched = -1
        entries = [*state.threads, self._start] if state.searching else list(state.threads)
        for origin, entry in enumerate(entries):
            stack = [entry]
            while stack and matched < 0:
                number = stack.pop()
                node = nodes[number]
                if number in seen:
                    if node.kind == "loop":  # the body matched nothing: Python's engine goes on behind the loop
                        stack.append(node.leave)
                    continue
                seen.add(number)
                if node.char is not None:
                    if symbol and node.char(symbol[0]):
                        threads.append(node.targets[0])
                        origins.append(origin)
                elif node.around is not None:
                    if node.around(state.before, symbol):
                        stack.append(node.targets[0])
                elif node.kind == "match":
                    matched = origin
                else:
                    stack.extend(reversed(node.targets))
            if matched >= 0:
                break
        work[0] += len(seen) + len(entries)
        if self._moves >= MAX_MOVES:
            self._states.clear()
            self._moves = 0
        self._moves += 1
        following = self._state(tuple(threads), self._known(symbol[:1]), state.searching and matched < 0)
        move = state.moves[symbol] = (following, tuple(origins), matched)
        return move
