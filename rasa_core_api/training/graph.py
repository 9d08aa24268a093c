"""The graph of story steps: order, and cycles taken apart.

Source of the rules: the observed behaviour of 0.9 to 0.14. Where those releases visited sets in arbitrary
order, the text order of the step ids decides here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.releases import Release
from rasa_core_api.training.structures import GENERATED, STORY_START, Checkpoint, StoryStep

#: More checkpoints than this, added to take cycles apart, are refused.
MAX_ADDED = 100_000

_SINK = GENERATED + "CYCL_SINK_"
_CONNECTOR = GENERATED + "CYCL_CONN_"
_SOURCE = GENERATED + "CYCL_SRC_"


@frozen
class StoryGraph:
    """Steps in the order they are played; `sources` maps ends that were cut out of a cycle to where they go on."""

    steps: Sequence[StoryStep]
    sources: Mapping[str, str]

    def target(self, end: Checkpoint) -> str:
        """The checkpoint that dialogues ending there continue from."""
        return self.sources.get(end.name, end.name)


def story_graph(steps: Sequence[StoryStep], release: Release) -> StoryGraph:
    """Order `steps` and take cycles apart. The start and end lists of the steps are changed in place.

    Raises `InvalidTrainingData` naming the checkpoints where there are too many cycles.
    """
    ordered, cyclic = _sort(steps)
    if not cyclic:
        if release.steps_need_both_ends:
            steps = _without_unused(steps, {}, set(), release)
            ordered, _ = _sort(steps)
        return StoryGraph(ordered, {})
    sources, cut = _cut_cycles(steps, cyclic)
    kept = _without_unused(steps, sources, cut, release)
    return StoryGraph(_sort(kept)[0], sources)


def _sort(steps: Sequence[StoryStep]) -> tuple[list[StoryStep], list[tuple[StoryStep, StoryStep]]]:
    """Depth-first topological order, and the edges that lead back to a step under way."""
    by_id = sorted(steps, key=lambda step: step.id)
    starting: dict[str, list[StoryStep]] = {}
    for step in by_id:
        for name in {start.name for start in step.starts}:
            starting.setdefault(name, []).append(step)
    search = _Search(starting)
    for step in reversed(by_id):
        if step.id not in search.seen:
            search.visit(step)
    cyclic = sorted(search.cyclic, key=lambda edge: (edge[0].id, edge[1].id))
    return search.finished[::-1], cyclic


@define
class _Search:
    _starting: Mapping[str, list[StoryStep]]
    seen: set[str] = field(factory=set)
    finished: list[StoryStep] = field(factory=list)
    cyclic: list[tuple[StoryStep, StoryStep]] = field(factory=list)
    _under_way: set[str] = field(factory=set)

    def _successors(self, step: StoryStep) -> list[StoryStep]:
        found = {next_step.id: next_step for end in step.ends for next_step in self._starting.get(end.name, ())}
        return [found[key] for key in sorted(found, reverse=True)]  # taken from the end

    def visit(self, root: StoryStep) -> None:
        path = [(root, self._successors(root))]
        self.seen.add(root.id)
        self._under_way.add(root.id)
        while path:
            step, waiting = path[-1]
            if not waiting:
                path.pop()
                self._under_way.discard(step.id)
                self.finished.append(step)
                continue
            following = waiting.pop()
            if following.id in self._under_way:
                self.cyclic.append((step, following))
            elif following.id not in self.seen:
                self.seen.add(following.id)
                self._under_way.add(following.id)
                path.append((following, self._successors(following)))


def _cut_cycles(
    steps: Sequence[StoryStep], cyclic: Sequence[tuple[StoryStep, StoryStep]]
) -> tuple[dict[str, str], set[str]]:
    """Replace each cyclic edge by generated checkpoints.

    Returns the continuation of every sink, and the names whose edges were cut.
    """
    sources: dict[str, str] = {}
    cut: set[str] = set()
    sharing: dict[int, list[StoryStep]] = {}  # by identity of the list of starts
    starting: dict[str, dict[str, StoryStep]] = {}  # by name of a start, then id of a step
    for step in steps:
        sharing.setdefault(id(step.starts), []).append(step)
        for start in step.starts:
            starting.setdefault(start.name, {})[step.id] = step
    added_in_all = 0
    for number, (leaving, entered) in enumerate(cyclic, 1):
        sink, connector, source = (f"{kind}{number:05x}" for kind in (_SINK, _CONNECTOR, _SOURCE))
        sources[sink] = source
        shared = {end.name for end in leaving.ends} & {start.name for start in entered.starts}
        cut |= shared
        leaving.ends = [end for end in leaving.ends if end.name not in shared]
        leaving.ends.append(Checkpoint(sink))
        connected = False
        touched = {key: step for name in shared for key, step in starting.get(name, {}).items()}
        added_in_all += len(touched)
        if added_in_all > MAX_ADDED:
            raise _too_cyclic(cyclic)
        for step in touched.values():
            added = source if step is entered else connector
            for start in [start for start in step.starts if start.name in shared]:
                copy = Checkpoint(added, start.conditions)
                if copy not in step.starts:
                    step.starts.append(copy)
                    starting.setdefault(added, {}).update({other.id: other for other in sharing[id(step.starts)]})
                connected = connected or step is not entered
        if connected:
            leaving.ends.append(Checkpoint(connector))
    return sources, cut


def _too_cyclic(cyclic: Sequence[tuple[StoryStep, StoryStep]]) -> InvalidTrainingData:
    counts = Counter(
        end.name
        for leaving, entered in cyclic
        for end in leaving.ends
        if any(end.name == start.name for start in entered.starts)
    )
    crowded = [name for name, _ in counts.most_common(5) if not name.startswith(GENERATED)]
    listing = ", ".join(f"{name} ({counts[name]})" for name in crowded)
    return InvalidTrainingData(
        f"{len(cyclic)} times a story leads back to where it came from, through the checkpoints {listing}: "
        "let fewer stories end at a checkpoint that other stories lead away from in a circle",
        checkpoints=crowded,
    )


def _without_unused(
    steps: Sequence[StoryStep], sources: Mapping[str, str], cut: set[str], release: Release
) -> list[StoryStep]:
    """Drop generated and cut checkpoints that nothing leads to or from, and the steps that hung on them."""
    started = {start.name for step in steps for start in step.starts}
    ended = {sources.get(end.name, end.name) for step in steps for end in step.ends}
    unused = (started ^ ended) - {STORY_START}
    kept = []
    for step in steps:
        starts = [start for start in step.starts if not (start.name in unused and start.name in cut)]
        ends = [
            end
            for end in step.ends
            if not (sources.get(end.name, end.name) in unused and end.name.startswith(GENERATED))
        ]
        lost = (step.starts and not starts) or (step.ends and not ends)
        step.starts, step.ends = starts, ends
        if not (lost and release.steps_need_both_ends):
            kept.append(step)
    return kept
