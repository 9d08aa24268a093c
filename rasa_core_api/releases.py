"""Every fact that differs between the releases of Rasa Core, as one table.

No other module compares version strings: it asks the `Release` it was given.
Sources: the behaviour of the releases 0.9.8, 0.10.4, 0.11.12, 0.12.4, 0.13.8 and 0.14.5; 0.8 from its files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import evolve, frozen

from rasa_core_api.constants import (
    ACTION_BACK,
    ACTION_DEACTIVATE_FORM,
    ACTION_DEFAULT_ASK_AFFIRMATION,
    ACTION_DEFAULT_ASK_REPHRASE,
    ACTION_DEFAULT_FALLBACK,
    ACTION_LISTEN,
    ACTION_RESTART,
    ACTION_REVERT_FALLBACK_EVENTS,
)


@frozen(kw_only=True)
class Release:
    """What one minor release of Rasa Core does differently from its neighbours."""

    name: str  # "0.11"
    order: tuple[int, int]

    # domain
    default_actions: tuple[str, ...]
    default_actions_overridable: bool  # listing a default action under `actions` makes it the bot's own
    utter_prefix_required: bool  # before, a template's name was an action whatever its prefix
    bool_slot_width: int
    sorts_intents: bool
    honours_use_entities: bool
    has_forms: bool
    auto_fill_option: bool
    normalises_triggers: bool  # intents carry `use_entities: true` beside `triggers`
    states_key: str  # of domain.json

    # parsing
    prefixes: str  # characters that may open an intent message
    strips_text: bool
    names_nlu_model: bool  # parse data of an NLU model in the process say `model: current`, `project: default`
    adds_slash: bool  # parse data of an unprefixed intent message get a "/" in front
    confidence_syntax: bool  # "/greet@0.8"
    bracket_syntax: bool  # "greet[name=value]"
    bracket_without_intent_fails: bool
    unmatched_confidence: float
    at_sign_unmatched: bool  # a text that begins with "@" matches nothing

    # trackers
    initial_followup: str | None  # follow-up action of a fresh or reset tracker
    trigger_message: bool  # an active form remembers the message that started it

    # turns
    bot_events_first: bool  # bot events are logged before the action event
    retimes_action_events: bool
    hard_coded_restart: bool  # the restart intent leads to action_restart without any policy
    rejection: bool  # an action server's 400 is a rejection
    sends_version: bool  # calls of action servers carry the version
    composed_responses: bool  # a response with text and image is logged as several bot events
    image_as_text: bool  # the collecting channel shows an image as a message "Image: <url>"
    undefined_template_text: bool  # a missing template is uttered as a text saying so
    undefined_restart_text: bool  # the same for utter_restart
    item_templates: bool  # "{any name}" is an item lookup; before, format strings

    # policies
    memoization_score: float
    fallback_score: float
    form_score: float
    normalisation: str  # "none", "l2" or "sum"
    uses_priorities: bool
    listen_after_user_rule: bool
    fallback_needs_listen: bool  # the NLU threshold counts only right after a user message
    default_fallback_action: str
    nulling_recall: bool  # augmented memoization also forgets the oldest states
    drops_augmented_trackers: bool
    minimum_model_version: str  # reported by /version
    answers_objects: bool  # /predict answers with an object instead of a map of scores, /model with 204
    metadata_file: str

    # training data
    keeps_listen_lines: bool  # `- action_listen` in a story counts, and none is added where there is one
    finishes_reverted: bool  # before `undo`, `rewind` or `restart` a training dialogue also ends
    revisits_checkpoints: bool  # dialogues that wait at checkpoints are kept until these are reached
    steps_need_both_ends: bool  # a step that lost all starts or all ends to the removal of cycles goes too

    def __str__(self) -> str:
        return self.name


_R08 = Release(
    name="0.8",
    order=(0, 8),
    default_actions=(ACTION_LISTEN, ACTION_RESTART),
    default_actions_overridable=False,
    utter_prefix_required=False,
    bool_slot_width=1,
    sorts_intents=False,
    honours_use_entities=False,
    has_forms=False,
    auto_fill_option=False,
    normalises_triggers=False,
    states_key="features",
    prefixes="/_",
    strips_text=False,
    names_nlu_model=False,
    adds_slash=False,
    confidence_syntax=False,
    bracket_syntax=True,
    bracket_without_intent_fails=False,
    unmatched_confidence=1.0,
    at_sign_unmatched=False,
    initial_followup=None,
    trigger_message=False,
    bot_events_first=True,
    retimes_action_events=False,
    hard_coded_restart=True,
    rejection=False,
    sends_version=False,
    composed_responses=True,
    image_as_text=True,
    undefined_template_text=True,
    undefined_restart_text=False,
    item_templates=False,
    memoization_score=1.0,
    fallback_score=1.1,
    form_score=1.2,
    normalisation="none",
    uses_priorities=False,
    listen_after_user_rule=False,
    fallback_needs_listen=False,
    default_fallback_action=ACTION_LISTEN,
    nulling_recall=True,
    drops_augmented_trackers=False,
    minimum_model_version="0.8.0",
    answers_objects=False,
    metadata_file="policy_metadata.json",
    keeps_listen_lines=False,
    finishes_reverted=False,
    revisits_checkpoints=False,
    steps_need_both_ends=False,
)
_R09 = evolve(_R08, name="0.9", order=(0, 9), states_key="states", normalisation="l2", minimum_model_version="0.9.0")
_R010 = evolve(
    _R09,
    name="0.10",
    order=(0, 10),
    default_actions=(ACTION_LISTEN, ACTION_RESTART, ACTION_DEFAULT_FALLBACK),
    sorts_intents=True,
    honours_use_entities=True,
    confidence_syntax=True,
    bracket_without_intent_fails=True,
    unmatched_confidence=0.0,
    at_sign_unmatched=True,
    bot_events_first=False,
    retimes_action_events=True,
    undefined_restart_text=True,
    default_fallback_action=ACTION_DEFAULT_FALLBACK,
    nulling_recall=False,
    steps_need_both_ends=True,
    minimum_model_version="0.10.0a3",
)
_R011 = evolve(
    _R010,
    name="0.11",
    order=(0, 11),
    default_actions_overridable=True,
    utter_prefix_required=True,
    initial_followup=ACTION_LISTEN,
    composed_responses=False,
    image_as_text=False,
    undefined_template_text=False,
    undefined_restart_text=False,
    normalisation="sum",
    listen_after_user_rule=True,
    minimum_model_version="0.11.0",
)
_R012 = evolve(
    _R011,
    name="0.12",
    order=(0, 12),
    default_actions=(*_R011.default_actions, ACTION_DEACTIVATE_FORM),
    bool_slot_width=2,
    has_forms=True,
    auto_fill_option=True,
    adds_slash=True,
    rejection=True,
    keeps_listen_lines=True,
    finishes_reverted=True,
    minimum_model_version="0.12.0",
    answers_objects=True,
)
_R013 = evolve(
    _R012,
    name="0.13",
    order=(0, 13),
    default_actions=(
        *_R012.default_actions,
        ACTION_REVERT_FALLBACK_EVENTS,
        ACTION_DEFAULT_ASK_AFFIRMATION,
        ACTION_DEFAULT_ASK_REPHRASE,
    ),
    prefixes="/",
    strips_text=True,
    names_nlu_model=True,
    bracket_syntax=False,
    sends_version=True,
    memoization_score=1.1,
    fallback_score=1.2,
    form_score=1.3,
    fallback_needs_listen=True,
    revisits_checkpoints=True,
    minimum_model_version="0.13.0a6",
)
_R014 = evolve(
    _R013,
    name="0.14",
    order=(0, 14),
    default_actions=(*_R013.default_actions, ACTION_BACK),
    normalises_triggers=True,
    trigger_message=True,
    hard_coded_restart=False,
    item_templates=True,
    memoization_score=1.0,
    fallback_score=1.0,
    form_score=1.0,
    uses_priorities=True,
    drops_augmented_trackers=True,
    minimum_model_version="0.14.0a3",
    metadata_file="metadata.json",
)

#: Oldest first.
RELEASES: tuple[Release, ...] = (_R08, _R09, _R010, _R011, _R012, _R013, _R014)
LATEST = RELEASES[-1]
BY_NAME: Mapping[str, Release] = {release.name: release for release in RELEASES}

_VERSION = re.compile(r"(\d+)\.(\d+)")


def release_of(version: str) -> Release:
    """The row that a version such as `0.12.0a2` proposes.

    Versions before 0.8 get the oldest row, later ones the newest. Raises ValueError where the
    text does not begin with two numbers.
    """
    match = _VERSION.match(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version such as 0.11.12")
    order = (int(match[1]), int(match[2]))
    chosen = RELEASES[0]
    for release in RELEASES:
        if release.order <= order:
            chosen = release
    return chosen


def candidates(version: str) -> tuple[Release, ...]:
    """The rows to try on a model of this version: the proposed one, then older ones, then newer ones.

    Alphas carried the layout of the release before, so the next lower row is the second guess.
    """
    first = RELEASES.index(release_of(version))
    return (*reversed(RELEASES[: first + 1]), *RELEASES[first + 1 :])
