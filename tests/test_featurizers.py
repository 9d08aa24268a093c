"""Tests of the featurizers that a model was trained with."""

from __future__ import annotations

from typing import Any

import pytest

from rasa_core_api.featurizers import LabelTokenEncoder, TrackerFeaturizer, featurizer_from_json
from rasa_core_api.trackers import Tracker
from tests.samples import action, domain, user

MAX_HISTORY = "rasa_core.featurizers.MaxHistoryTrackerFeaturizer"
FULL = "rasa_core.featurizers.FullDialogueTrackerFeaturizer"
BINARY = {
    "py/object": "rasa_core.featurizers.BinarySingleStateFeaturizer",
    "num_features": 4,
    "input_state_map": {"intent_greet": 0, "prev_action_listen": 2, "slot_count_0": 3},
}
TOKENS: dict[str, Any] = {
    "py/object": "rasa_core.featurizers.LabelTokenizerSingleStateFeaturizer",
    "user_labels": ["intent_greet", "intent_ask_ask", "entity_city"],
    "slot_labels": ["slot_city_0", "slot_a_b_0"],
    "bot_labels": ["action_listen", "utter_greet_utter"],
    "user_vocab": {"ask": 0, "city": 1, "entity": 2, "greet": 3, "intent": 4},
    "bot_vocab": {"action": 0, "greet": 1, "listen": 2, "utter": 3},
    "split_symbol": "_",
    "use_shared_vocab": False,
    "num_features": 11,
}


def read(state_featurizer: Any, path: str = MAX_HISTORY, **members: Any) -> TrackerFeaturizer:
    return featurizer_from_json({"py/object": path, "state_featurizer": state_featurizer, **members}, domain())


def encode(state_featurizer: Any, entries: dict[str, float]) -> dict[int, float]:
    encoder = read(state_featurizer).encoder
    assert encoder is not None
    return encoder.encode(entries)


def test_binary_columns() -> None:
    """The stored map gives the columns; states that it does not know have none."""
    assert encode(BINARY, {"intent_greet": 1.0, "slot_count_0": 0.25, "intent_new": 1.0}) == {0: 1.0, 3: 0.25}


def test_label_words() -> None:
    """Words add up, slots keep their place, and the blocks lie side by side."""
    row = encode(TOKENS, {"intent_ask_ask": 1.0, "entity_city": 1.0, "slot_a_b_0": 1.0, "prev_action_listen": 1.0})
    assert row == {4: 1.0, 0: 2.0, 2: 1.0, 1: 1.0, 6: 1.0, 7: 1.0, 9: 1.0}


def test_label_words_of_user_only_after_listening() -> None:
    """Between two actions the user's words do not count."""
    assert encode(TOKENS, {"intent_greet": 1.0, "prev_utter_greet_utter": 1.0}) == {10: 2.0, 8: 1.0}


def test_label_words_of_unknown_states() -> None:
    """Forms and unknown names have no words."""
    assert encode(TOKENS, {"active_form_f": 1.0, "prev_nowhere": 1.0, "prev_action_listen": 1.0}) == {7: 1.0, 9: 1.0}


def test_shared_vocabulary_is_referred_to() -> None:
    """A vocabulary that was written as a reference is the other one; both blocks keep their own columns."""
    for kept, referred in (("user_vocab", "bot_vocab"), ("bot_vocab", "user_vocab")):
        shared = {"action": 0, "ask": 1, "city": 2, "entity": 3, "greet": 4, "intent": 5, "listen": 6, "utter": 7}
        data = {**TOKENS, kept: shared, referred: {"py/id": 4}, "num_features": 18}
        encoder = read(data).encoder
        assert isinstance(encoder, LabelTokenEncoder)
        assert (encoder.user_width, encoder.slot_width, encoder.bot_width) == (8, 2, 8)
        assert encoder.encode({"prev_action_listen": 1.0, "intent_greet": 1.0}) == {10: 1.0, 16: 1.0, 5: 1.0, 4: 1.0}


def test_action_tokens() -> None:
    """An action's words are counted once, from the beginning of their block."""
    encoder = read(TOKENS).encoder
    assert isinstance(encoder, LabelTokenEncoder)
    assert encoder.action_tokens("utter_greet_utter") == {1, 3}


def test_windows() -> None:
    """The tracker featurizer says how many states count."""
    assert read(BINARY, max_history=3).max_history == 3
    assert read(BINARY).max_history == 5
    assert read(BINARY, FULL, max_len=39).max_history is None


def test_memoization_has_no_encoder() -> None:
    """A plain state featurizer, or none, leaves the states as they are."""
    plain = {"py/object": "rasa_core.featurizers.SingleStateFeaturizer", "user_feature_len": None}
    assert read(plain, max_history=2).encoder is None
    assert read(None, max_history=2).encoder is None


def row_after(featurizer: TrackerFeaturizer, ranking: list[tuple[str, float]]) -> dict[int, float]:
    tracker = Tracker("u", domain())
    message = user("greet")
    message.parse_data["intent_ranking"] = [  # type: ignore[index]
        {"name": name, "confidence": confidence} for name, confidence in ranking
    ]
    tracker.extend([action("action_listen"), message])
    state = tracker.newest_state()
    assert state is not None
    return featurizer.row(state)


def test_probabilities() -> None:
    """Ranked intents count with their confidence where the featurizer was trained so, else only the best counts."""
    ranking = [("greet", 0.75), ("bye", 0.25)]
    columns = {"intent_greet": 0, "intent_bye": 1}
    data = {**BINARY, "input_state_map": columns, "num_features": 2}
    assert row_after(read(data, use_intent_probabilities=True), ranking) == {0: 0.75, 1: 0.25}
    assert row_after(read(data, use_intent_probabilities=False), ranking) == {0: 1.0}


def test_old_featurizers() -> None:
    """0.8 takes columns from the domain and the history from the metadata, and the later of two equal intents."""
    old = {"py/object": "rasa_core.featurizers.BinaryFeaturizer"}
    featurizer = featurizer_from_json(old, domain(), 7)
    states = domain().states
    assert featurizer.max_history == 7
    listen = states.index("prev_action_listen")
    place = states.index("slot_place_0")
    expected = {states.index("intent_bye"): 1.0, place: 1.0, listen: 1.0}
    assert row_after(featurizer, [("greet", 0.4), ("bye", 0.4)]) == expected
    raw = featurizer_from_json({"py/object": "rasa_core.featurizers.ProbabilisticFeaturizer"}, domain(), 7)
    greet, bye = states.index("intent_greet"), states.index("intent_bye")
    assert row_after(raw, [("greet", 0.4), ("bye", 0.3)]) == {greet: 0.4, bye: 0.3, place: 1.0, listen: 1.0}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "names no featurizer"),
        ({"py/object": 3}, "names no featurizer"),
        ({"py/object": "os.system"}, "'os.system' is not one of ours"),
        ({"py/object": MAX_HISTORY, "state_featurizer": {"py/object": "a.B"}}, "state featurizer 'a.B' is not one"),
        ({"py/object": MAX_HISTORY, "max_history": 0}, "max_history is 0"),
        ({"py/object": MAX_HISTORY, "max_history": True}, "max_history is True"),
        ({"py/object": MAX_HISTORY, "state_featurizer": {**BINARY, "num_features": "4"}}, "num_features"),
        ({"py/object": MAX_HISTORY, "state_featurizer": {**BINARY, "input_state_map": None}}, "input_state_map"),
        ({"py/object": MAX_HISTORY, "state_featurizer": {**BINARY, "num_features": 3}}, "has the column 3"),
        ({"py/object": FULL, "state_featurizer": {**TOKENS, "num_features": 12}}, "its parts make 11"),
        ({"py/object": FULL, "state_featurizer": {**TOKENS, "bot_labels": [1]}}, "bot_labels"),
        ({"py/object": FULL, "state_featurizer": {**TOKENS, "split_symbol": ""}}, "split_symbol"),
        (
            {"py/object": FULL, "state_featurizer": {**TOKENS, "user_vocab": {"py/id": 1}, "bot_vocab": {"py/id": 1}}},
            "no vocabulary",
        ),
    ],
)
def test_refused(data: Any, reason: str) -> None:
    """What cannot be a featurizer of ours is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        featurizer_from_json(data, domain())
