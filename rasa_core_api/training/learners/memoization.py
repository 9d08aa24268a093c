"""What memoization and form policies remember of the training dialogues."""

from __future__ import annotations

from attrs import frozen

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.states import state_text
from rasa_core_api.training.examples import PADDING, windows
from rasa_core_api.training.generator import TrainingData

#: The form policy looks at this many states.
FORM_HISTORY = 2

_FORM = "active_form_"
_LISTEN = f"prev_{ACTION_LISTEN}"


@frozen
class Contradiction:
    """The same situation with different continuations: state numbers, and the actions."""

    window: tuple[int, ...]
    actions: tuple[str, ...]


def memorize(data: TrainingData, max_history: int) -> tuple[dict[str, int], list[Contradiction]]:
    """Plain key to action index for every unambiguous window, and the contradictions that were forgotten.

    0.14 leaves concatenated dialogues out; that hangs on the release of the domain.
    """
    domain, texts = data.domain, data.contexts.text
    lookup: dict[tuple[int, ...], int] = {}
    ambiguous: dict[tuple[int, ...], set[str]] = {}
    for window, action in windows(data, max_history, augmented=not domain.release.drops_augmented_trackers):
        if window in ambiguous:
            ambiguous[window].add(action)
            continue
        index = domain.action_index.get(action)
        if index is None:
            raise TrainingFailed(f"the stories run {action!r}, which is no action of the domain", action=action)
        known = lookup.setdefault(window, index)
        if known != index:
            del lookup[window]
            ambiguous[window] = {domain.action_names[known], action}
    plain = {
        f"[{', '.join('null' if state == PADDING else texts(state) for state in window)}]": index
        for window, index in lookup.items()
    }
    found = [Contradiction(window, tuple(sorted(actions))) for window, actions in ambiguous.items()]
    return plain, found


def memorize_forms(data: TrainingData) -> dict[str, str]:
    """Plain key to form name for the states where a form was left to another action (unhappy paths)."""
    states = data.contexts.states
    lookup: dict[str, str] = {}
    for window, _ in windows(data, FORM_HISTORY, augmented=not data.domain.release.drops_augmented_trackers):
        newest = states[window[-1]] if window[-1] != PADDING else {}
        forms = [name[len(_FORM) :] for name, value in newest.items() if name.startswith(_FORM) and value > 0]
        if not forms or not any(_LISTEN in name and value > 0 for name, value in newest.items()):
            continue
        older = (
            None
            if window[0] == PADDING
            else {name: value for name, value in states[window[0]].items() if "prev_" in name and value > 0}
        )
        lookup[f"[{state_text(older)}, {state_text(newest)}]"] = forms[0]
    return lookup
