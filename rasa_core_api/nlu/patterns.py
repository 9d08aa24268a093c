"""Regular expressions and lookup tables of a bot, searched within bounds.

An expression in training data or in a model is written by the bot's makers, the text it is searched in by
anybody. Python's engine backtracks, so some expressions take exponential time on texts that almost match. Which
ones cannot be seen from nested quantifiers alone (`(a|ab)*`, `a?a?a?aaa`), so this is what happens instead:

1. At load the expression is parsed, and from its tree an upper bound is computed on the steps the backtracking
   engine can take in a text of n characters: a repetition of one character has at most n ends, a repetition of
   something that has w ends has at most the sum of w^k, a sequence multiplies, alternatives add, and each of the
   n + 1 places is a start. Backtracking cannot try more than that, so this errs on the safe side only.
2. Texts short enough for the bound to stay under `STEPS` are searched by Python's engine.
3. Longer texts, and all texts if the expression is dangerous, are searched by `automaton`, which reports the same
   match in linear time.
4. An expression that the automaton cannot express (references to groups, long look-around) is searched in as many
   characters as `IRREGULAR_STEPS` allow, and is refused by name if those are fewer than `LEAST_LENGTH`.
5. Nothing after the first `MAX_SEARCHED` characters of a text is searched.

A lookup table is not turned into one huge expression but looked up word by word; it finds what the original's
expression `(?i)(\\bA\\b|\\bB\\b)` found.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Protocol

from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.nlu.automaton import Automaton, NotRegular, char_source, parser

MAX_SEARCHED = 12_000  # characters of a text: all that a model looks at
MAX_PATTERN = 20_000  # characters of an expression
STEPS = 200_000  # of the backtracking engine in one search: about two milliseconds
IRREGULAR_STEPS = 5_000_000  # the same where there is no other engine
MAX_TOKENIZED = 6 * MAX_SEARCHED  # characters of a text to find words in: a digit may have become `__NUMBER__`
LEAST_LENGTH = 64  # an expression that cannot be searched in this many characters is of no use

_ENDLESS = 10**15
_BOUNDARY = re.compile(r"\b")
_STEP = 1_000  # boundaries that are looked at in one step
_FLAG_GROUP = re.compile(r"\(\?([aimsux]+)\)")
_LOOKUP = re.compile(r"\(\?i\)\(\\b(.*)\\b\)", re.DOTALL)
_LITERAL = re.compile(r"(?:[\w\s\"'/,:;<=>@!%&`~-]|[^\x00-\x7f]|\\[^0-9A-Za-z])+")


class Pattern(Protocol):
    """Something to search for; `pattern` is its expression."""

    @property
    def pattern(self) -> str: ...

    def search(self, text: str) -> tuple[int, int] | None:
        """Start and end of the first match, None where there is none."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of all matches, without overlap."""

    def steps(self, text: str, every: bool) -> Generator[None, None, list[tuple[int, int]]]:
        """The first match, or every one, found in steps of a millisecond or two."""


def compile_pattern(name: str, pattern: str) -> Pattern:
    """Make an expression, or one generated from a lookup table, searchable.

    Raises InvalidTrainingData that names the pattern, when it cannot be parsed or cannot be searched within bounds.
    """
    lookup = _LOOKUP.fullmatch(pattern)
    if lookup:
        elements = lookup[1].split(r"\b|\b")
        if all(_LITERAL.fullmatch(element) for element in elements):
            return LookupPattern([re.sub(r"\\(.)", r"\1", element, flags=re.DOTALL) for element in elements])
    return RegexPattern(name, pattern)


class RegexPattern:
    """An expression; see the module for how it is searched."""

    def __init__(self, name: str, pattern: str) -> None:
        self.pattern = pattern
        if len(pattern) > MAX_PATTERN:
            raise _refused(name, f"it has {len(pattern)} characters, more than {MAX_PATTERN}")
        self._compiled, tree = _parse(name, pattern)
        self._limit = _longest(tree, STEPS)
        self._match_limit = _longest(tree, STEPS, searching=False) if self._compiled.groups else 0
        self._automaton: Automaton | None = None
        if self._limit < MAX_SEARCHED:
            try:
                self._automaton = Automaton(tree, self._compiled.flags)
            except NotRegular as error:
                self._limit = _longest(tree, IRREGULAR_STEPS)
                if self._limit < LEAST_LENGTH:
                    raise _refused(
                        name,
                        f"it can take very long on some texts, and {error}; "
                        "write it without nested or adjacent repetitions, or without look-around and references",
                    ) from None
            except RecursionError:
                raise _refused(name, "its groups are nested too deeply") from None

    def search(self, text: str) -> tuple[int, int] | None:
        """Start and end of the first match within the bounds."""
        if len(text) <= self._limit or self._automaton is None:
            match = self._compiled.search(text[: self._limit])
            return match.span() if match else None
        return self._automaton.search(text[:MAX_SEARCHED])

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of all matches within the bounds."""
        if len(text) <= self._limit or self._automaton is None:
            return [match.span() for match in self._compiled.finditer(text[: self._limit])]
        return self._automaton.spans(text[:MAX_SEARCHED])

    def steps(self, text: str, every: bool) -> Generator[None, None, list[tuple[int, int]]]:
        """The first match within the bounds, or every one, in steps."""
        if self._automaton is None or len(text) <= self._limit:
            if every:
                return self.spans(text)
            first = self.search(text)
        elif every:
            return (yield from self._automaton.span_steps(text[:MAX_SEARCHED]))
        else:
            first = yield from self._automaton.search_steps(text[:MAX_SEARCHED])
        return [] if first is None else [first]

    def findall(self, text: str) -> list[str]:
        """The texts of all matches (of the group, if there is one) within the bounds."""
        if len(text) <= self._limit or self._automaton is None:
            found = self._compiled.findall(text[: self._limit])
            return [item if isinstance(item, str) else item[0] for item in found]
        spans = self._automaton.spans(text[:MAX_TOKENIZED])
        if self._compiled.groups:
            return [self._group(text, start, end) for start, end in spans if end - start + 2 <= self._match_limit]
        return [text[start:end] for start, end in spans]

    def _group(self, text: str, start: int, end: int) -> str:
        """The text of the group in a match that the automaton found; the characters beside it may be looked at."""
        beside = text[max(start - 1, 0) : end + 1]
        match = self._compiled.match(beside, min(start, 1))
        return match.group(1) or "" if match else ""


class LookupPattern:
    """A lookup table: any of the elements, between word boundaries, in any case.

    Finds the leftmost match and, of those that start there, the first in the table's order.
    """

    def __init__(self, elements: Iterable[str]) -> None:
        self._elements = [element for element in elements if element]
        self._order: dict[str, int] = {}
        lengths: dict[str, set[int]] = {}
        for number, element in enumerate(self._elements):
            folded = _folded(element)
            self._order.setdefault(folded, number)
            lengths.setdefault(folded[:2], set()).add(len(folded))
        self._lengths = {start: tuple(sorted(found)) for start, found in lengths.items()}

    @property
    def pattern(self) -> str:
        """The expression that the original generates for such a table."""
        return lookup_expression(self._elements)

    def search(self, text: str) -> tuple[int, int] | None:
        """Start and end of the first match."""
        return next((span for span in self._matches(text[:MAX_SEARCHED]) if span), None)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of all matches, without overlap."""
        return [span for span in self._matches(text[:MAX_SEARCHED]) if span]

    def steps(self, text: str, every: bool) -> Generator[None, None, list[tuple[int, int]]]:
        """The first match, or every one, in steps."""
        found = []
        for span in self._matches(text[:MAX_SEARCHED]):
            if span is None:
                yield
                continue
            found.append(span)
            if not every:
                break
        return found

    def _matches(self, text: str) -> Iterator[tuple[int, int] | None]:
        """The matches, and None where it is time for a pause."""
        folded = _folded(text)
        places = [match.start() for match in _BOUNDARY.finditer(text)]
        boundaries = frozenset(places)
        free = 0  # where the last match ended
        for number, start in enumerate(places, 1):
            if number % _STEP == 0:
                yield None
            if start >= free:
                end = self._match(folded, boundaries, start)
                if end is not None:
                    yield start, end
                    free = end

    def _match(self, folded: str, boundaries: frozenset[int], start: int) -> int | None:
        best = None
        for key in (folded[start : start + 2], folded[start : start + 1]):
            for length in self._lengths.get(key, ()):
                end = start + length
                if end in boundaries:
                    order = self._order.get(folded[start:end])
                    if order is not None and (best is None or order < best[0]):
                        best = (order, end)
        return None if best is None else best[1]


def lookup_expression(elements: Iterable[str]) -> str:
    """The expression for a lookup table, as models of the original hold it."""
    return "(?i)(\\b" + "\\b|\\b".join(re.escape(element) for element in elements) + "\\b)"


def _refused(name: str, reason: str) -> InvalidTrainingData:
    return InvalidTrainingData(f"the regular expression {name!r} cannot be used: {reason}", pattern=name, reason=reason)


def _parse(name: str, pattern: str) -> tuple[re.Pattern[str], Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                compiled = re.compile(pattern)
            except re.error:
                # flags in the middle were allowed by the Pythons of that time and hold for the whole expression
                flags = "".join(_FLAG_GROUP.findall(pattern))
                pattern = f"(?{flags})" * bool(flags) + _FLAG_GROUP.sub("", pattern)
                compiled = re.compile(pattern)
            return compiled, parser.parse(pattern)
    except (re.error, OverflowError) as error:
        raise _refused(name, str(error)) from None
    except (RecursionError, MemoryError):
        raise _refused(name, "it is nested too deeply or too large") from None


def _longest(tree: Any, steps: int, searching: bool = True) -> int:
    """The longest text, up to `MAX_SEARCHED`, in which a search (or a match at one place) takes so many steps."""
    low, high = 0, MAX_SEARCHED
    while low < high:
        middle = (low + high + 1) // 2
        cost, ends = _bound(tree, middle)
        if (middle + 1 if searching else 1) * (cost + ends) <= steps:
            low = middle
        else:
            high = middle - 1
    return low


def _bound(tree: Iterable[Any], n: int) -> tuple[int, int]:
    """Upper bounds, from one place in a text of n characters, on steps and on the ends that are tried."""
    cost, ends = 0, 1
    for name, argument in tree:
        own_cost, own_ends = _bound_one(str(name), argument, n)
        cost = min(cost + ends * own_cost, _ENDLESS)
        ends = min(ends * own_ends, _ENDLESS)
    return cost, ends


def _bound_one(name: str, argument: Any, n: int) -> tuple[int, int]:
    if name == "AT" or char_source(name, argument) is not None:
        return 1, 1
    if name == "BRANCH":
        bounds = [_bound(branch, n) for branch in argument[1]]
        return sum(cost + 1 for cost, _ in bounds), sum(ends for _, ends in bounds)
    if name == "SUBPATTERN":
        return _bound(argument[3], n)
    if name in ("ASSERT", "ASSERT_NOT"):
        return _bound(argument[1], n)[0] + 1, 1
    if name == "ATOMIC_GROUP":
        return _bound(argument, n)[0] + 1, 1
    if name == "GROUPREF":
        return n + 1, 1
    if name == "GROUPREF_EXISTS":
        bounds = [_bound(branch, n) for branch in argument[1:] if branch is not None]
        return sum(cost + 1 for cost, _ in bounds) + 1, sum(ends for _, ends in bounds) + 1
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, body = argument
        cost, ends = _bound(body, n)
        rounds = min(int(most), max(n, int(least)) + 1)
        if ends <= 1:
            total_cost, total_ends = (cost + 1) * (rounds + 1), max(rounds - int(least), 0) + 1
        elif rounds * ends.bit_length() > 200:
            total_cost = total_ends = _ENDLESS
        else:
            total_ends = sum(ends**count for count in range(rounds + 1))
            total_cost = (cost + 1) * total_ends
        return min(total_cost, _ENDLESS), 1 if name == "POSSESSIVE_REPEAT" else min(total_ends, _ENDLESS)
    return _ENDLESS, _ENDLESS


@functools.lru_cache(maxsize=4096)
def _fold_char(char: str) -> str:
    upper = char.upper()
    return (upper.lower() if len(upper) == 1 else char.lower())[0]


def _folded(text: str) -> str:
    """The text in one case, with every character in its place."""
    return text.lower() if text.isascii() else "".join(map(_fold_char, text))
