"""The graph of what stories say: actions as nodes, messages on the way, equal parts merged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from attrs import define, field, frozen

from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.events import ActionExecuted, Event, UserUttered
from rasa_core_api.training.generator import applied_events
from rasa_core_api.training.story_writer import user_line
from rasa_core_api.training.structures import StoryStep

START, END = 0, -1

#: The text that stands for a message; None: what the story says.
Example = Callable[[UserUttered], "str | None"]


@frozen
class Node:
    """`kind` is start, end, action, message or block."""

    id: int
    label: str
    kind: str


@define
class Picture:
    """Nodes and directed edges, ready to be drawn."""

    nodes: list[Node] = field(factory=list)
    edges: list[tuple[int, int]] = field(factory=list)

    def as_json(self) -> str:
        """The nodes and edges as JSON text."""
        data: JSON = {
            "nodes": [{"id": node.id, "label": node.label, "kind": node.kind} for node in self.nodes],
            "edges": [{"source": source, "target": target} for source, target in self.edges],
        }
        return json.dumps(data, indent=1)

    def as_dot(self) -> str:
        """The picture in the language of Graphviz."""
        styles = {
            "start": 'shape=circle, style=filled, fillcolor="green", fontcolor="white"',
            "end": 'shape=circle, style=filled, fillcolor="red", fontcolor="white"',
            "message": 'shape=box, style=filled, fillcolor="lightblue"',
        }
        lines = ["digraph stories {"]
        for node in self.nodes:
            style = styles.get(node.kind, "shape=ellipse")
            lines.append(f"  n{node.id + 1} [label={json.dumps(node.label)}, {style}];")
        lines += [f"  n{source + 1} -> n{target + 1};" for source, target in self.edges]
        return "\n".join([*lines, "}", ""])


@define
class StoryNetwork:
    """The merged graph: labels of nodes, and edges with the messages that lead along them."""

    labels: dict[int, str] = field(factory=lambda: {START: "START", END: "END"})
    edges: dict[tuple[int, int], dict[str, str]] = field(factory=dict)  # key of a message to its text; "" for none
    _known: dict[tuple[int, str, str], int] = field(factory=dict)

    def add(self, events: Sequence[Event], example: Example) -> None:
        """Add a conversation; beginnings that are equal share their nodes."""
        node, key, text = START, "", ""
        for event in applied_events(events):
            if isinstance(event, UserUttered):
                key = user_line(event)
                text = example(event) or key
            elif isinstance(event, ActionExecuted) and event.action_name != ACTION_LISTEN:
                place = (node, key, event.action_name)
                following = self._known.get(place)
                if following is None:
                    following = self._known[place] = len(self._known) + 1
                    self.labels[following] = event.action_name
                self.edges.setdefault((node, following), {})[key] = text
                node, key, text = following, "", ""
        self.edges.setdefault((node, END), {})[key] = text

    def merge(self, max_history: int) -> None:
        """Merge nodes of one label that lead on alike, are reached alike, or have the same history of labels.

        Repeats until nothing changes. Histories are label paths of up to `max_history` nodes before.
        """
        while (
            self._merge_by(self._outgoing())
            or self._merge_by(self._incoming())
            or self._merge_by(self._histories(max_history))
        ):
            pass

    def _merge_by(self, signatures: dict[int, object]) -> bool:
        chosen: dict[tuple[str, object], int] = {}
        moved: dict[int, int] = {}
        for node in sorted(self.labels):
            if node in (START, END):
                continue
            kept = chosen.setdefault((self.labels[node], signatures.get(node)), node)
            if kept != node:
                moved[node] = kept
        if not moved:
            return False
        edges: dict[tuple[int, int], dict[str, str]] = {}
        for (source, target), messages in self.edges.items():
            edges.setdefault((moved.get(source, source), moved.get(target, target)), {}).update(messages)
        self.edges = edges
        for node in moved:
            del self.labels[node]
        return True

    def _outgoing(self) -> dict[int, object]:
        found: dict[int, set[tuple[int, str]]] = {}
        for (source, target), messages in self.edges.items():
            found.setdefault(source, set()).update((target, key) for key in messages)
        return {node: frozenset(edges) for node, edges in found.items()}

    def _incoming(self) -> dict[int, object]:
        found: dict[int, set[tuple[int, str]]] = {}
        for (source, target), messages in self.edges.items():
            found.setdefault(target, set()).update((source, key) for key in messages)
        return {node: frozenset(edges) for node, edges in found.items()}

    def _histories(self, length: int) -> dict[int, object]:
        before: dict[int, list[tuple[int, str]]] = {}
        for (source, target), messages in self.edges.items():
            before.setdefault(target, []).extend((source, key) for key in messages)
        paths: dict[int, frozenset[tuple[str, ...]]] = {node: frozenset([()]) for node in self.labels}
        for _ in range(max(1, length)):
            paths = {
                node: frozenset(
                    (*path, self.labels[source], key) for source, key in before.get(node, ()) for path in paths[source]
                )
                or frozenset([()])
                for node in self.labels
            }
        return dict(paths)

    def picture(self) -> Picture:
        """The graph with a box for every message."""
        kinds = {START: "start", END: "end"}
        nodes = [Node(node, label, kinds.get(node, "action")) for node, label in sorted(self.labels.items())]
        edges = []
        following = max(self.labels) + 1
        for (source, target), messages in sorted(self.edges.items()):
            for key, text in sorted(messages.items()):
                if not key:
                    edges.append((source, target))
                    continue
                nodes.append(Node(following, text, "message"))
                edges += [(source, following), (following, target)]
                following += 1
        return Picture(nodes, edges)


def story_picture(
    conversations: Iterable[Sequence[Event]], max_history: int = 2, example: Example = lambda event: None
) -> Picture:
    """The merged graph of conversations."""
    network = StoryNetwork()
    for events in conversations:
        network.add(events, example)
    network.merge(max_history)
    return network.picture()


def block_picture(steps: Sequence[StoryStep]) -> Picture:
    """How story blocks are connected by checkpoints."""
    picture = Picture()
    numbers: dict[tuple[str, str], int] = {}

    def number(kind: str, label: str) -> int:
        found = numbers.get((kind, label))
        if found is None:
            found = numbers[(kind, label)] = len(numbers)
            picture.nodes.append(Node(found, label, kind))
        return found

    for step in steps:
        block = number("block", step.block_name)
        starts = [number("message", start.name) for start in step.starts]
        ends = [number("message", end.name) for end in step.ends]
        for edge in [*((start, block) for start in starts), *((block, end) for end in ends)]:
            if edge not in picture.edges:
                picture.edges.append(edge)
    return picture
