"""EmbeddingPolicy: the dialogue and the actions as points in one space, from the TensorFlow files of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rasa_core_api.constants import ACTION_LISTEN
from rasa_core_api.domain import Domain
from rasa_core_api.featurizers import LabelTokenEncoder, TrackerFeaturizer
from rasa_core_api.legacy.tensor_bundle import read_bundle
from rasa_core_api.legacy.tf_graph import read_constants
from rasa_core_api.policies.embedding_network import EmbeddingNetwork, Projected, State
from rasa_core_api.policies.embedding_weights import CONSTANTS, facts_of, read_weights
from rasa_core_api.policies.files import read_encoding_featurizer, read_json, read_priority, unsupported
from rasa_core_api.policies.policy import Dense, LoadContext, Scores
from rasa_core_api.policies.rows import Row, RowPolicy
from rasa_core_api.states import StateNode
from rasa_core_api.trackers import Tracker

STEM = "tensorflow_embedding.ckpt"
#: States are looked back at in blocks: the network begins at the last multiple of this many states that leaves at
#: least as many before the newest one. A turn costs the same in a conversation of any length.
BLOCK = 256
#: The newest states keep what the network is after them; so does each of so many, for trackers that come from a store.
_NEWEST = 24
_EVERY = 64


class _Carried:
    """The network after a state, which is number `index` of its conversation, begun at number `begin`."""

    __slots__ = ("begin", "index", "state")

    def __init__(self, index: int, begin: int, state: State) -> None:
        self.index = index
        self.begin = begin
        self.state = state


class EmbeddingPolicy(RowPolicy[Projected]):
    """Scores of an embedding network over the whole dialogue."""

    name = "EmbeddingPolicy"

    def __init__(self, network: EmbeddingNetwork, featurizer: TrackerFeaturizer, priority: int | None = None) -> None:
        super().__init__(featurizer, priority)
        self.network = network
        self.ceiling = network.ceiling

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> EmbeddingPolicy:
        path = directory / f"{STEM}.index"
        featurizer, encoder = read_encoding_featurizer(directory, context)
        if not isinstance(encoder, LabelTokenEncoder) or featurizer.max_history is not None:
            raise unsupported(
                directory / "featurizer.json",
                "EmbeddingPolicy needs a FullDialogueTrackerFeaturizer with a LabelTokenizerSingleStateFeaturizer",
            )
        names = context.domain.action_names
        actions = np.zeros((len(names), encoder.bot_width), np.float32)
        for number, name in enumerate(names):
            actions[number, sorted(encoder.action_tokens(name))] = 1.0
        values = read_bundle(directory / STEM, _is_weight)
        constants = read_constants(directory / f"{STEM}.meta", CONSTANTS)
        try:
            facts = facts_of(constants)
        except ValueError as error:
            raise unsupported(directory / f"{STEM}.meta", str(error)) from None
        try:
            network = EmbeddingNetwork(
                read_weights(values, facts),
                facts,
                user_width=encoder.user_width,
                slot_width=encoder.slot_width,
                actions=actions,
                listen=names.index(ACTION_LISTEN),
            )
        except ValueError as error:
            raise unsupported(path, str(error)) from None
        config = read_json(directory / "embedding_policy.json") or {}
        return cls(network, featurizer, read_priority(config))

    def project(self, features: Mapping[int, float]) -> Projected:
        return self.network.project(features)

    def score(self, rows: tuple[Row[Projected] | None, ...]) -> list[float]:
        state: State | None = None
        for row in rows:
            if row is not None:
                state = self.network.step(state, row.projection)
        assert state is not None
        return self.network.output(state)

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        newest = tracker.newest_state()
        if newest is None:
            return Dense([0.0] * len(domain.action_names))
        return Dense(self.network.output(self._carried(newest).state))

    def _carried(self, newest: StateNode) -> _Carried:
        """The network after a state; goes on from the nearest state where that is known."""
        ahead: list[StateNode] = []
        node: StateNode | None = newest
        known: object = None
        while node is not None and (known := node.recall(self)) is None:
            ahead.append(node)
            node = node.previous
        carried = known if isinstance(known, _Carried) else None
        index = -1 if carried is None else carried.index
        last = index + len(ahead)
        begin = max(0, (last // BLOCK - 1) * BLOCK)
        if carried is not None and carried.begin != begin:
            # the block before the known state begins to count: its states are gone through anew
            while node is not None and index >= begin:
                ahead.append(node)
                node, index = node.previous, index - 1
            carried = None
        if carried is None:
            del ahead[last - begin + 1 :]
        state = None if carried is None else carried.state
        for left in range(len(ahead) - 1, -1, -1):
            node = ahead[left]
            state = self.network.step(state, self.row(node).projection)
            carried = _Carried(last - left, begin, state)
            if (last - left) % _EVERY == 0:
                node.kept = {**(node.kept or {}), self: carried}
            if left < _NEWEST:
                node.cache[self] = carried
            else:
                node.forget()  # an old state was only looked at in passing
        assert carried is not None
        return carried


def _is_weight(name: str) -> bool:
    return "/Adam" not in name and not name.startswith("beta")
