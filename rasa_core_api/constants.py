"""Names and limits that several rooms share."""

from __future__ import annotations

from typing import Any

#: A JSON value. Untyped on purpose: what it holds is checked where it is read.
JSON = Any

DEFAULT_SENDER_ID = "default"
DEFAULT_PORT = 5005
#: Connections that may wait to be accepted.
BACKLOG = 1024

#: A turn stops after this many actions, whatever the policies say.
MAX_ACTIONS_PER_TURN = 10

ACTION_LISTEN = "action_listen"
ACTION_RESTART = "action_restart"
ACTION_BACK = "action_back"
ACTION_DEFAULT_FALLBACK = "action_default_fallback"
ACTION_DEACTIVATE_FORM = "action_deactivate_form"
ACTION_REVERT_FALLBACK_EVENTS = "action_revert_fallback_events"
ACTION_DEFAULT_ASK_AFFIRMATION = "action_default_ask_affirmation"
ACTION_DEFAULT_ASK_REPHRASE = "action_default_ask_rephrase"

REQUESTED_SLOT = "requested_slot"
UTTER_PREFIX = "utter_"
