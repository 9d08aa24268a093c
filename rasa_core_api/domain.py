"""The domain: what a bot understands, remembers, says and does, under the rules of one release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

from twisted.logger import Logger

from rasa_core_api.constants import JSON, REQUESTED_SLOT
from rasa_core_api.exceptions import InvalidDomain, UnknownAction
from rasa_core_api.jsontext import encode
from rasa_core_api.releases import Release
from rasa_core_api.slots import ClassFinder, Slot, UnfeaturizedSlot, refuse_classes, slot_from_json

log = Logger()

#: Characters of a name from outside that errors show.
MAX_SHOWN = 100
#: Unknown slots that the log names; more tell nobody anything.
_MAX_TOLD = 100

#: Features of slots whose entries are kept: most slots have few, and conversations that are at the same share them.
_MAX_KEPT = 1_000

_CONFIG_KEYS = frozenset({"store_entities_as_slots", "restart_intent"})


class Domain:
    """A domain; immutable after construction.

    `states` is the feature layout: the names of all input states, in the order of the columns.
    """

    def __init__(
        self,
        release: Release,
        *,
        intents: Mapping[str, Mapping[str, JSON]],
        entities: Iterable[str] = (),
        slots: Iterable[Slot] = (),
        templates: Mapping[str, list[dict[str, JSON]]] = MappingProxyType({}),
        user_actions: Iterable[str] = (),
        forms: Iterable[str] = (),
        store_entities_as_slots: bool = True,
        restart_intent: str = "restart",
        declared_actions: Iterable[str] | None = None,
        action_factory: str | None = None,
    ) -> None:
        self.release = release
        self.intents: Mapping[str, Mapping[str, JSON]] = dict(intents)
        self.entities = tuple(entities)
        self.slots = tuple(sorted(slots, key=lambda slot: slot.name))
        self.templates = dict(templates)
        self.user_actions = tuple(user_actions)
        self.forms = tuple(forms)
        self._told: set[str] = set()
        self.store_entities_as_slots = store_entities_as_slots
        self.restart_intent = restart_intent
        self.action_factory = action_factory
        self._declared = self.user_actions if declared_actions is None else tuple(declared_actions)

        defaults = release.default_actions
        names = (*defaults, *(name for name in self.user_actions if name not in defaults), *self.forms)
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if repeated:
            raise InvalidDomain(f"actions: {', '.join(repeated)} named more than once; every action needs one name")
        self.action_names = names
        self.action_index = {name: index for index, name in enumerate(names)}
        self.overridden_defaults = frozenset(
            name for name in self.user_actions if name in defaults and release.default_actions_overridable
        )
        if self.forms and release.has_forms and all(slot.name != REQUESTED_SLOT for slot in self.slots):
            self.slots = (*self.slots, UnfeaturizedSlot(REQUESTED_SLOT))
        self.slot_by_name = {slot.name: slot for slot in self.slots}
        self.initial_slots: Mapping[str, JSON] = {slot.name: slot.initial_value for slot in self.slots}
        self._ignoring_entities = frozenset(
            name
            for name, properties in self.intents.items()
            if release.honours_use_entities and not properties.get("use_entities", True)
        )
        self._filled_slots = tuple(
            (slot.name, slot.type_name == "list")
            for slot in self.slots
            if store_entities_as_slots and (slot.auto_fill or not release.auto_fill_option)
        )
        self._kept_entries: dict[tuple[str, tuple[float, ...]], tuple[tuple[str, float], ...]] = {}
        self._featurized = {slot.name: (slot, _columns(slot, slot.width)) for slot in self.slots if slot.width}
        self.initial_slot_features: Mapping[str, tuple[tuple[str, float], ...]] = {
            name: entries for name, value in self.initial_slots.items() if (entries := self.slot_features(name, value))
        }

    # --- reading -------------------------------------------------------------------------------------

    @classmethod
    def from_json(cls, data: JSON, release: Release, find_class: ClassFinder = refuse_classes) -> Domain:
        """The domain that a specification (`domain.yml`, read) describes. Raises `InvalidDomain` by key path."""
        if data is None:
            data = {}
        if not isinstance(data, Mapping):
            raise InvalidDomain("a domain is a map with intents, entities, slots, templates and actions")
        config = _typed(data, "config", Mapping, {})
        for key in config:
            if key not in _CONFIG_KEYS:
                raise InvalidDomain(f"config.{key}: unknown; known are {', '.join(sorted(_CONFIG_KEYS))}")
        declared = _names(data, "actions")
        actions = declared
        if not release.utter_prefix_required:
            actions = _names(data, "action_names") or declared
            actions = [name for name in actions if name not in release.default_actions or name in declared]
        slots = _typed(data, "slots", Mapping, {})
        return cls(
            release,
            intents=_read_intents(_typed(data, "intents", list, []), release),
            entities=_names(data, "entities"),
            slots=[slot_from_json(str(name), options, release, find_class) for name, options in slots.items()],
            templates=_read_templates(_typed(data, "templates", Mapping, {})),
            user_actions=actions,
            forms=_names(data, "forms") if release.has_forms else [],
            store_entities_as_slots=bool(config.get("store_entities_as_slots", True)),
            restart_intent=str(config.get("restart_intent", "restart")),
            declared_actions=declared,
            action_factory=data.get("action_factory") if not release.utter_prefix_required else None,
        )

    # --- features ------------------------------------------------------------------------------------

    @cached_property
    def intent_names(self) -> tuple[str, ...]:
        """The intents in the order of the feature layout."""
        return tuple(sorted(self.intents)) if self.release.sorts_intents else tuple(self.intents)

    @cached_property
    def states(self) -> list[str]:
        """The input states in the order of the feature columns."""
        return [
            *(f"intent_{name}" for name in self.intent_names),
            *(f"entity_{name}" for name in self.entities),
            *(column for _, columns in self._featurized.values() for column in columns),
            *(f"prev_{name}" for name in self.action_names),
            *(f"active_form_{name}" for name in self.forms),
        ]

    def slot_features(self, name: str, value: JSON) -> tuple[tuple[str, float], ...]:
        """The active state entries of one slot that holds `value`; empty for slots without features."""
        found = self._featurized.get(name)
        if found is None:
            return ()
        slot, columns = found
        features = slot.features(value)
        kept = self._kept_entries.get((name, features))
        if kept is not None:
            return kept
        if len(features) > len(columns):  # a foreign class may have more than it says
            columns = _columns(slot, len(features))
        entries = tuple([entry for entry in zip(columns, features, strict=False) if entry[1] != 0])
        if len(self._kept_entries) < _MAX_KEPT:
            self._kept_entries[name, features] = entries
        return entries

    def uses_entities(self, intent_name: str | None) -> bool:
        """Whether the entities of a message with this intent are features."""
        return intent_name not in self._ignoring_entities

    # --- behaviour -----------------------------------------------------------------------------------

    def slots_from_entities(self, entities: Iterable[Mapping[str, JSON]]) -> list[tuple[str, JSON]]:
        """Slot values that the entities of a message fill, in slot order.

        A list slot takes all values of its entity, any other the last one.
        """
        if not entities:
            return []
        values: dict[str, list[JSON]] = {}
        for entity in entities:
            values.setdefault(entity["entity"], []).append(entity.get("value"))
        return [
            (name, values[name] if is_list else values[name][-1])
            for name, is_list in self._filled_slots
            if name in values
        ]

    def index_of(self, action_name: str) -> int:
        """The action's place in the feature order. Raises `UnknownAction`."""
        try:
            return self.action_index[action_name]
        except KeyError:
            listing = "\n".join(f"\t - {name}" for name in self.action_names)
            raise UnknownAction(
                f"Cannot access action '{action_name[:MAX_SHOWN]}', as that name is not a registered action for this "
                "domain. "
                f"Available actions are: \n{listing}",
                action=action_name[:MAX_SHOWN],
            ) from None

    def report_unknown_slot(self, name: str) -> None:
        """Log that a slot was set which the domain lacks: once a name, however many events and replays set it."""
        name = name[:MAX_SHOWN]
        if name not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(name)
            log.error("the domain has no slot {slot!r}: its value is kept in the log only", slot=name)

    def triggered_action(self, intent_name: str | None) -> str | None:
        """The action that an intent triggers (0.14)."""
        if intent_name is None:
            return None
        action = self.intents.get(intent_name, {}).get("triggers")
        return action if isinstance(action, str) else None

    # --- writing -------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, JSON]:
        """The JSON that `GET /domain` answers and action servers are sent."""
        release = self.release
        entries: dict[str, JSON] = {
            "config": {"store_entities_as_slots": self.store_entities_as_slots},
            "intents": [{name: dict(properties)} for name, properties in self.intents.items()],
            "entities": list(self.entities),
            "slots": {slot.name: self._slot_entry(slot) for slot in self.slots},
            "templates": self.templates,
            "actions": list(self._declared),
        }
        if release.has_forms:
            entries["forms"] = list(self.forms)
        if not release.utter_prefix_required:
            entries["action_names"] = [name for name in self.action_names if name not in release.default_actions]
            entries["action_factory"] = self.action_factory
        return entries

    def _slot_entry(self, slot: Slot) -> dict[str, JSON]:
        entry: dict[str, JSON] = {"type": slot.path, **slot.persistence()}
        if self.release.auto_fill_option:
            entry["auto_fill"] = slot.auto_fill
        return entry

    @cached_property
    def _json(self) -> str:
        return encode(self.as_dict())

    def as_json(self) -> str:
        """The JSON form as compact text; encoded once and kept."""
        return self._json


def _columns(slot: Slot, width: int) -> tuple[str, ...]:
    """Names of a slot's input states."""
    return tuple(f"slot_{slot.name}_{i}" for i in range(width))


def _typed(data: Mapping[str, JSON], key: str, kind: type, default: JSON) -> JSON:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        wanted = "list" if kind is list else "map"
        raise InvalidDomain(f"{key}: expected a {wanted}, found {type(value).__name__}")
    return value


def _names(data: Mapping[str, JSON], key: str) -> list[str]:
    names = _typed(data, key, list, [])
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise InvalidDomain(f"{key}[{index}]: expected a name, found {name!r}; quote it if it is meant as text")
    return list(names)


def _read_intents(items: list[JSON], release: Release) -> dict[str, dict[str, JSON]]:
    intents: dict[str, dict[str, JSON]] = {}
    for index, item in enumerate(items):
        if isinstance(item, str):
            intents[item] = {"use_entities": True}
        elif isinstance(item, Mapping) and len(item) == 1:
            name, properties = next(iter(item.items()))
            if not isinstance(properties, Mapping):
                raise InvalidDomain(f"intents[{index}].{name}: expected a map such as {{use_entities: false}}")
            intents[str(name)] = dict(properties)
            if release.normalises_triggers:
                intents[str(name)].setdefault("use_entities", True)
        else:
            raise InvalidDomain(f"intents[{index}]: expected a name or a map with one name, found {item!r}")
    return intents


def _read_templates(entries: Mapping[str, JSON]) -> dict[str, list[dict[str, JSON]]]:
    templates: dict[str, list[dict[str, JSON]]] = {}
    for name, variations in entries.items():
        if not isinstance(variations, list):
            raise InvalidDomain(f"templates.{name}: expected a list of variations")
        texts = []
        for index, variation in enumerate(variations):
            if isinstance(variation, str):
                texts.append({"text": variation})
            elif isinstance(variation, Mapping) and "text" in variation:
                texts.append(dict(variation))
            else:
                raise InvalidDomain(f"templates.{name}[{index}]: expected a text or a map with 'text'")
        templates[str(name)] = texts
    return templates
