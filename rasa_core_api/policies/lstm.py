"""The recurrent network: guesses the next action from what the stories looked like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rasa_core_api.domain import Domain
from rasa_core_api.featurizers import TrackerFeaturizer
from rasa_core_api.legacy.keras_hdf5 import KerasLayer, read_architecture_and_weights, read_model
from rasa_core_api.policies.files import member, read_encoding_featurizer, read_priority, require_json, unsupported
from rasa_core_api.policies.layers import Vector
from rasa_core_api.policies.network import Network, State
from rasa_core_api.policies.policy import Dense, LoadContext, Scores
from rasa_core_api.policies.rows import Row, RowPolicy
from rasa_core_api.states import StateNode
from rasa_core_api.trackers import Tracker

#: Of a whole dialogue, the newest states keep what was carried through them, and of the others each of so many.
_NEWEST = 24
_EVERY = 64


class _Carried:
    """What a network carries out of a state, which is the `count`-th of its conversation."""

    __slots__ = ("count", "state")

    def __init__(self, count: int, state: State) -> None:
        self.count = count
        self.state = state


class KerasPolicy(RowPolicy[Vector]):
    """Scores of a Keras network, over the last states or over the whole dialogue."""

    name = "KerasPolicy"

    def __init__(self, network: Network, featurizer: TrackerFeaturizer, priority: int | None = None) -> None:
        super().__init__(featurizer, priority)
        self.network = network
        self.ceiling = network.ceiling

    @classmethod
    def load(cls, directory: Path, context: LoadContext) -> KerasPolicy:
        config_path = directory / "keras_policy.json"
        config = require_json(config_path)
        layers: list[KerasLayer]
        if "model" in config:
            source = member(directory, config_path, config, "model")
            layers = read_model(source)
        else:
            source = member(directory, config_path, config, "weights")
            layers = read_architecture_and_weights(member(directory, config_path, config, "arch"), source)
        network = Network(layers, str(source))
        featurizer, encoder = read_encoding_featurizer(directory, context)
        if encoder.width != network.inputs:
            raise unsupported(source, f"takes {network.inputs} features, the featurizer gives {encoder.width}")
        actions = len(context.domain.action_names)
        if network.outputs != actions:
            raise unsupported(source, f"scores {network.outputs} actions, the domain has {actions}")
        return cls(network, featurizer, read_priority(config))

    def project(self, features: Mapping[int, float]) -> Vector:
        return self.network.project(features)

    def score(self, rows: tuple[Row[Vector] | None, ...]) -> list[float]:
        network = self.network
        state: State | None = None
        for row in rows:
            projection = network.padding if row is None else row.projection
            if projection is not None:
                state = network.step(projection, state)
        return network.output(state)

    def predict(self, tracker: Tracker, domain: Domain) -> Scores:
        if self.featurizer.max_history is None:
            return Dense(self.network.output(self._carried(tracker.newest_state())))
        return super().predict(tracker, domain)

    def _carried(self, newest: StateNode | None) -> State | None:
        """What the network carries out of the newest state; goes on from the nearest state where that is known."""
        ahead: list[StateNode] = []
        node = newest
        known: object = None
        while node is not None and (known := node.recall(self)) is None:
            ahead.append(node)
            node = node.previous
        count, state = (known.count, known.state) if isinstance(known, _Carried) else (0, None)
        for left in range(len(ahead) - 1, -1, -1):
            node = ahead[left]
            state = self.network.step(self.row(node).projection, state)
            count += 1
            carried = _Carried(count, state)
            if count % _EVERY == 0:
                node.kept = {**(node.kept or {}), self: carried}
            if left < _NEWEST:
                node.cache[self] = carried
            else:
                node.forget()  # an old state was only looked at in passing
        return state
