"""Takes what a person said out of a log, such that every prediction stays the same.

Policies see intents of the domain, entity names, slot features, action names and confidences. All of these stay, and so
do times and the number of events. Texts become placeholders; so do the values of entities and slots, unless a value is
itself a feature of the domain: a category it knows, a truth, the number of a float slot. These are kept, and a
`requested_slot` that is the name of a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rasa_core_api.constants import JSON
from rasa_core_api.domain import Domain
from rasa_core_api.events import AgentUttered, BotUttered, Event, SlotSet, UserUttered

PLACEHOLDER = "..."
#: The slot that a form asks for; its value is a name of the domain.
_REQUESTED = "requested_slot"
#: Members of an entity, of an intent and of parse data that are no data of a person.
_ENTITY_KEPT = ("entity", "confidence", "confidence_entity", "extractor", "processors")
_INTENT_KEPT = ("name", "confidence")
_PARSE_KEPT = ("project", "model")
#: Intents that lead to an action in any domain.
_BUILT_IN_INTENTS = ("restart", "back", "session_start")
#: What a value may be replaced by, tried in this order until one has the features of the value.
_CANDIDATES: tuple[JSON, ...] = (PLACEHOLDER, [PLACEHOLDER], 0, False, {}, [], "")


def anonymised(events: Iterable[Event], domain: Domain) -> list[Event]:
    """The same log without texts and values; as many events, in the same order, at the same times."""
    return [_anonymised(event, domain) for event in events]


def _anonymised(event: Event, domain: Domain) -> Event:
    if isinstance(event, UserUttered):
        return event.changed(text=_text(event.text), parse_data=_parse_data(event.parse_data, domain))
    if isinstance(event, SlotSet):
        return event.changed(value=slot_value(domain, event.key, event.value))
    if isinstance(event, (BotUttered, AgentUttered)):
        return event.changed(text=_text(event.text), data=_data(event.data))
    return event


def slot_value(domain: Domain, name: str, value: JSON) -> JSON:
    """A value with the same features; the value itself where no other one has them."""
    if value is None or (name == _REQUESTED and isinstance(value, str) and value in domain.slot_by_name):
        return value
    alike = [candidate for candidate in _CANDIDATES if _json_type(candidate) is _json_type(value)]
    slot = domain.slot_by_name.get(name)
    if slot is None or not slot.width:
        return alike[0]
    wanted = slot.features(value)
    for candidate in (*alike, *_CANDIDATES):
        if slot.features(candidate) == wanted:
            return candidate
    return value


def _json_type(value: JSON) -> type:
    return int if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)


def _text(text: str | None) -> str | None:
    return PLACEHOLDER if text else text


def _data(data: JSON) -> JSON:
    """Which members there were stays, what was in them does not."""
    if isinstance(data, Mapping):
        return {name: None if value is None else PLACEHOLDER for name, value in data.items()}
    return None if data is None else PLACEHOLDER


def _parse_data(data: JSON, domain: Domain) -> JSON:
    if not isinstance(data, Mapping):
        return data
    kept: dict[str, JSON] = {name: data[name] for name in _PARSE_KEPT if name in data}
    masks: dict[str, str] = {}
    if "intent" in data:
        kept["intent"] = _intent(data["intent"], domain, masks)
    ranking = data.get("intent_ranking")
    if isinstance(ranking, list):
        kept["intent_ranking"] = [_intent(intent, domain, masks) for intent in ranking]
    if "text" in data:
        kept["text"] = _text(data["text"]) if isinstance(data["text"], str) else None
    entities = data.get("entities")
    if isinstance(entities, list):
        kept["entities"] = [_entity(entity, domain) for entity in entities]
    return kept


def _intent(intent: JSON, domain: Domain, masks: dict[str, str]) -> JSON:
    """Name and confidence. A name that the domain does not have tells policies nothing, and may be the text itself;
    each such name of a message gets a mask of its own.
    """
    if not isinstance(intent, Mapping):
        return intent if intent is None else {}
    kept = {name: intent[name] for name in _INTENT_KEPT if name in intent}
    name = kept.get("name")
    if isinstance(name, str) and name and not _is_known(name, domain):
        kept["name"] = masks.setdefault(name, f"{PLACEHOLDER}{len(masks) + 1}" if masks else PLACEHOLDER)
    return kept


def _is_known(intent_name: str, domain: Domain) -> bool:
    return intent_name in domain.intents or intent_name == domain.restart_intent or intent_name in _BUILT_IN_INTENTS


def _entity(entity: JSON, domain: Domain) -> JSON:
    if not isinstance(entity, Mapping):
        return PLACEHOLDER
    kept: dict[str, JSON] = {name: entity[name] for name in _ENTITY_KEPT if name in entity}
    if "value" in entity:
        # an entity fills the slot of its name: both get the same value
        kept["value"] = slot_value(domain, str(entity.get("entity")), entity["value"])
    kept.update({name: 0 for name in ("start", "end") if name in entity})
    return kept
