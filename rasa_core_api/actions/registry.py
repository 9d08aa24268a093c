"""Which action a name means, under the rules of a release."""

from __future__ import annotations

from attrs import define, field, frozen

from rasa_core_api.actions import Action
from rasa_core_api.actions.builtin import BUILTIN_ACTIONS, TemplateAction
from rasa_core_api.actions.remote import RemoteAction
from rasa_core_api.concurrency import Slices
from rasa_core_api.constants import UTTER_PREFIX
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import EndpointConfig, OutgoingHTTP
from rasa_core_api.events.reading import EventReader


@frozen
class ActionServer:
    """How remote actions are reached; `version` is told to action servers."""

    endpoint: EndpointConfig | None
    http: OutgoingHTTP
    reader: EventReader
    slices: Slices
    version: str


@define
class ActionRegistry:
    """The actions of one domain, made when first used."""

    _domain: Domain
    _server: ActionServer
    _actions: dict[str, Action] = field(factory=dict)

    def get(self, name: str) -> Action:
        """The action of that name. Raises `UnknownAction`."""
        action = self._actions.get(name)
        if action is None:
            self._domain.index_of(name)
            action = self._actions[name] = self._make(name)
        return action

    def _make(self, name: str) -> Action:
        domain, server = self._domain, self._server
        if name in domain.release.default_actions and name not in domain.overridden_defaults:
            return BUILTIN_ACTIONS[name]
        if domain.release.utter_prefix_required:
            is_template = name.startswith(UTTER_PREFIX)
        else:
            is_template = name in domain.templates or name.startswith(UTTER_PREFIX)
        if is_template:
            return TemplateAction(name)
        return RemoteAction(name, server.endpoint, server.http, server.reader, server.slices, server.version)
