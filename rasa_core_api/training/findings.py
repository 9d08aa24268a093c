"""Mistakes in a domain alone, and how a mistake is told; cheap enough for the start of a server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from attrs import frozen

from rasa_core_api.constants import JSON, UTTER_PREFIX
from rasa_core_api.domain import Domain
from rasa_core_api.training.structures import Place


@frozen
class Finding:
    """One mistake: `error` spoils the bot, `warning` is suspicious. `place` is where to look."""

    severity: str
    code: str
    place: Place
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place or '-'}: {self.severity}: {self.message}; {self.remedy} [{self.code}]"

    def as_dict(self) -> dict[str, JSON]:
        """The JSON form."""
        return {
            "severity": self.severity,
            "code": self.code,
            "file": self.place.file,
            "line": self.place.line or None,
            "message": self.message,
            "remedy": self.remedy,
        }


@frozen
class DomainText:
    """The text of a domain file, to find the lines of names in."""

    file: str
    text: str = ""

    def place(self, section: str, name: str) -> Place:
        """The line in `section` that begins with `name`; the section's own line where it is not found."""
        inside, section_line = False, 0
        pattern = re.compile(rf"\s*(?:-\s*)?\{{?\s*['\"]?{re.escape(name)}['\"]?\s*(?:[:,}}\s#]|$)")
        for number, line in enumerate(self.text.splitlines(), 1):
            if re.match(r"[A-Za-z_]+\s*:", line):
                inside = line.split(":")[0].strip() == section
                section_line = number if inside else section_line
                if inside and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", line.partition(":")[2]):
                    return Place(self.file, number)
            elif inside and pattern.match(line):
                return Place(self.file, number)
        return Place(self.file, section_line)


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    close = get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean {close[0]!r}? Otherwise {otherwise}" if close else otherwise


def check_domain(domain: Domain, data: JSON, text: DomainText, nlg_server: bool = False) -> list[Finding]:
    """Mistakes in the domain alone. `data` is the specification as read; `nlg_server`: texts come from a server."""
    found = []
    for section in ("intents", "entities", "actions", "forms"):
        items = (data or {}).get(section) or []
        names = [next(iter(item)) if isinstance(item, Mapping) and item else item for item in items]
        for name in sorted({str(name) for name in names if names.count(name) > 1}):
            place = text.place(section, name)
            severity = "warning" if section == "intents" else "error"  # the releases took the last one
            found.append(Finding(severity, "duplicate", place, f"{section}: {name!r} occurs twice", "remove one"))
    for intent in domain.intents:
        action = domain.triggered_action(intent)
        if action is not None and action not in domain.action_index:
            message = f"the intent {intent!r} triggers {action!r}, which is no action"
            remedy = nearest(action, domain.action_names, "add it to 'actions'")
            found.append(Finding("error", "unknown-trigger", text.place("intents", intent), message, remedy))
    for action in domain.user_actions:
        if action.startswith(UTTER_PREFIX) and action not in domain.templates and not nlg_server:
            message = f"the action {action!r} has no template, so it says nothing"
            remedy = nearest(action, domain.templates, "add one to 'templates'")
            found.append(Finding("error", "missing-template", text.place("actions", action), message, remedy))
    for slot in domain.slots:
        if slot.type_name is None and slot.path.startswith("rasa_core.slots."):
            found.append(
                Finding(
                    "error",
                    "slot-type",
                    text.place("slots", slot.name),
                    f"the slot {slot.name!r} has no type",
                    "give it one, such as 'type: text'",
                )
            )
        elif not slot.path.startswith("rasa_core.slots."):
            module = slot.path.rpartition(".")[0]
            found.append(
                Finding(
                    "warning",
                    "custom-class",
                    text.place("slots", slot.name),
                    f"the slot {slot.name!r} is of the class {slot.path!r}, which is only run where it is trusted",
                    f"start with --trusted_modules {module}",
                )
            )
    return found


def check_templates(domain: Domain, text: DomainText) -> list[Finding]:
    """Templates that no action says."""
    found = []
    for name in domain.templates:
        called = name in domain.action_index or any(name == f"{UTTER_PREFIX}{word}" for word in _IMPLICIT)
        asked = domain.forms and name.startswith(f"{UTTER_PREFIX}ask_")
        if name.startswith(UTTER_PREFIX) and not called and not asked:
            place = text.place("templates", name)
            message = f"the template {name!r} belongs to no action"
            found.append(Finding("warning", "unused-template", place, message, "list it under 'actions' or remove it"))
    return found


#: Templates that the engine itself uses.
_IMPLICIT = ("default", "restart", "back", "ask_rephrase")
