"""Templates of the domain, filled with slots and arguments."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.nlg import Response, ResponseGenerator
from rasa_core_api.releases import Release
from rasa_core_api.trackers import Tracker

log = Logger()
T = TypeVar("T")

#: Picks one of several variations.
Chooser = Callable[[Sequence[Any]], Any]

#: Widths and precisions of format specifications beyond this leave a text unfilled.
MAX_WIDTH = 100

_ITEM = re.compile(r"\{([^\n]+?)\}")
_NUMBER = re.compile(r"\d+")


class _Unfillable(Exception):
    """A placeholder that names nothing, or asks for more than JSON values give."""


class _SafeFormatter(string.Formatter):
    """Format strings over JSON values: names, indices, keys, conversions and moderate widths; no attributes."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        match = re.match(r"[^.\[]*", field_name)
        assert match is not None
        first, rest = match[0], field_name[match.end() :]
        value = self.get_value(int(first) if first.isdigit() else first, args, kwargs)
        while rest:
            part = re.match(r"\[([^\]]+)\]", rest)
            if part is None:
                raise _Unfillable(field_name)
            key: Any = int(part[1]) if part[1].isdigit() else part[1]
            value = value[key]
            rest = rest[part.end() :]
        return value, first

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(key, int):
            raise _Unfillable(str(key))
        return kwargs[key]

    def format_field(self, value: Any, format_spec: str) -> Any:
        if any(int(number) > MAX_WIDTH for number in _NUMBER.findall(format_spec[:200])) or len(format_spec) > 200:
            raise _Unfillable(format_spec[:40])
        return super().format_field(value, format_spec)


_FORMATTER = _SafeFormatter()


def fill(text: str, variables: Mapping[str, JSON], item_templates: bool) -> str:
    """A template's text with its placeholders replaced; unfilled as a whole where one cannot be.

    `item_templates` chooses the rule of 0.14: `{any name}` on one line is looked up as it is.
    """
    if "{" not in text and "}" not in text:
        return text
    try:
        if item_templates:
            return _ITEM.sub(lambda match: str(variables[match[1]]), text)
        return _FORMATTER.vformat(text, (), variables)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, _Unfillable) as problem:
        log.warn(
            "a template stays unfilled: {problem} is no slot or argument that fits",
            problem=str(problem) or type(problem).__name__,
        )
        return text


class TemplateGenerator(ResponseGenerator):
    """Chooses among the variations of a template with the given `choose` and fills the chosen text."""

    def __init__(self, templates: Mapping[str, list[dict[str, JSON]]], release: Release, choose: Chooser) -> None:
        self._templates = templates
        self._release = release
        self._choose = choose
        # copying is only needed where there is more than a text to protect
        self._plain = {
            name: all(not isinstance(value, (dict, list)) for variation in variations for value in variation.values())
            for name, variations in templates.items()
        }

    async def generate(
        self, template: str, tracker: Tracker, channel: str, arguments: Mapping[str, JSON]
    ) -> Response | None:
        variations = self._templates.get(template)
        if not variations:
            return None
        chosen = variations[0] if len(variations) == 1 else self._choose(variations)
        response: Response = dict(chosen) if self._plain[template] else deepcopy(chosen)
        text = response.get("text")
        if isinstance(text, str) and ("{" in text or "}" in text):
            variables = {**tracker.slots, **arguments}
            if variables:
                response["text"] = fill(text, variables, self._release.item_templates)
        return response
