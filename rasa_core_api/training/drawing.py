"""A picture as one HTML page that needs no network: layers from top to bottom, zoom, drag and search."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from rasa_core_api.training.story_picture import Picture

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 160, 28, 18, 46
#: Nodes that a row may always have; wide pictures have more.
_FEWEST_COLUMNS = 16
_SWEEPS = 6
_LETTERS = 22  # shown of a label; the rest is in its title

_STYLE = """
html, body { margin: 0; height: 100%; overflow: hidden; font: 13px system-ui, sans-serif }
#bar { position: fixed; top: 0; left: 0; right: 0; padding: 6px 10px; background: #fffd; border-bottom: 1px solid #ccc }
#bar input { font: inherit; width: 22em } #stage { width: 100%; height: 100%; cursor: grab; background: #fcfcfc }
.edge { fill: none; stroke: #999; stroke-width: 1.2 }
text { pointer-events: none; dominant-baseline: middle; font-size: 12px }
rect { stroke: #555; fill: #fff } .message rect { fill: #add8e6 }
.start rect { fill: #2e8b57 } .end rect { fill: #c0392b }
.edge.near { stroke: #d35400; stroke-width: 3 } .node.near rect { stroke: #d35400; stroke-width: 3 }
.focused .edge:not(.near) { opacity: .15 } .start text, .end text { fill: #fff }
.found rect { stroke: #d35400; stroke-width: 4 } .dim:not(.near) { opacity: .25 }
"""

_SCRIPT = """
const stage = document.getElementById('stage'), view = document.getElementById('view');
let scale = 1, dx = 0, dy = 40, drag = null;
const place = () => view.setAttribute('transform', `translate(${dx},${dy}) scale(${scale})`);
const fit = () => {
  const b = view.getBBox(), w = stage.clientWidth, h = stage.clientHeight - 50;
  scale = Math.min(1, w / (b.width + 40), h / (b.height + 40));
  dx = (w - b.width * scale) / 2 - b.x * scale;
  dy = 50;
  place();
};
const zoom = (factor, x, y) => {
  dx = x - (x - dx) * factor;
  dy = y - (y - dy) * factor;
  scale *= factor;
  place();
};
stage.addEventListener('wheel', e => {
  e.preventDefault();
  zoom(e.deltaY < 0 ? 1.15 : 1 / 1.15, e.clientX, e.clientY);
}, {passive: false});
stage.addEventListener('pointerdown', e => {
  drag = [e.clientX - dx, e.clientY - dy];
  stage.setPointerCapture(e.pointerId);
});
stage.addEventListener('pointermove', e => {
  if (drag) { dx = e.clientX - drag[0]; dy = e.clientY - drag[1]; place(); }
});
stage.addEventListener('pointerup', () => { drag = null; });
const nodes = [...document.querySelectorAll('.node')], edges = [...document.querySelectorAll('.edge')];
const focus = id => {
  const near = new Set(id === undefined ? [] : [id]);
  edges.forEach(e => {
    const touches = id !== undefined && (e.dataset.from === id || e.dataset.to === id);
    e.classList.toggle('near', touches);
    if (touches) { near.add(e.dataset.from); near.add(e.dataset.to); }
  });
  nodes.forEach(n => n.classList.toggle('near', near.has(n.dataset.id)));
  view.classList.toggle('focused', id !== undefined);
};
view.addEventListener('pointerover', e => {
  const node = e.target.closest('.node');
  if (!drag) focus(node ? node.dataset.id : undefined);
});
let hits = [], at = -1;
const show = node => {
  const b = node.getBBox();
  dx = stage.clientWidth / 2 - (b.x + b.width / 2) * scale;
  dy = stage.clientHeight / 2 - (b.y + b.height / 2) * scale;
  place();
};
const search = document.getElementById('search'), count = document.getElementById('count');
search.addEventListener('input', () => {
  const wanted = search.value.toLowerCase();
  at = -1;
  hits = wanted ? nodes.filter(n => n.dataset.label.toLowerCase().includes(wanted)) : [];
  const found = new Set(hits);
  nodes.forEach(n => {
    n.classList.toggle('found', found.has(n));
    n.classList.toggle('dim', !!wanted && !found.has(n));
  });
  count.textContent = wanted ? `${hits.length} found` : '';
});
search.addEventListener('keydown', e => {
  if (e.key !== 'Enter' || !hits.length) return;
  scale = Math.max(scale, 1);
  at = (at + 1) % hits.length;
  show(hits[at]);
  focus(hits[at].dataset.id);
  count.textContent = `${at + 1} of ${hits.length}`;
});
document.getElementById('fit').addEventListener('click', () => { focus(); fit(); });
fit();
"""


def layers(picture: Picture) -> list[list[int]]:
    """Nodes by layer, each as deep as the shortest way to it; crossings are reduced by mean positions."""
    following: dict[int, list[int]] = {node.id: [] for node in picture.nodes}
    before: dict[int, list[int]] = {node.id: [] for node in picture.nodes}
    for source, target in picture.edges:
        following[source].append(target)
        before[target].append(source)
    depth: dict[int, int] = {}
    roots = [node.id for node in picture.nodes if not before[node.id]]
    for root in [*roots, *(node.id for node in picture.nodes)]:
        if root in depth:
            continue
        depth[root] = 0
        waiting = [root]
        for reached in waiting:
            for target in following[reached]:
                if target not in depth:
                    depth[target] = depth[reached] + 1
                    waiting.append(target)
    bottom = max(depth.values(), default=0)
    for node in picture.nodes:
        if node.kind == "end":
            depth[node.id] = bottom + 1
    found: list[list[int]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in picture.nodes:
        found[depth[node.id]].append(node.id)
    rank = {item: place / len(layer) for layer in found for place, item in enumerate(layer)}
    for sweep in range(_SWEEPS):
        neighbours = before if sweep % 2 == 0 else following
        for layer in found if sweep % 2 == 0 else reversed(found):
            keys = {item: _mean([rank[other] for other in neighbours[item]], rank[item]) for item in layer}
            layer.sort(key=keys.__getitem__)
            rank.update((item, (place + 0.5) / len(layer)) for place, item in enumerate(layer))
    return [layer for layer in found if layer]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _places(picture: Picture) -> dict[int, tuple[float, float]]:
    """Where nodes are drawn; a layer too wide for a screen's proportions goes on in further rows."""
    places: dict[int, tuple[float, float]] = {}
    widest = max(_FEWEST_COLUMNS, round(len(picture.nodes) ** 0.5))
    row = 0
    for layer in layers(picture):
        rows = -(-len(layer) // widest)
        for number in range(rows):
            nodes = layer[number::rows]  # neighbours stay below each other
            left = -len(nodes) * (_WIDTH + _GAP_X) / 2
            for column, node in enumerate(nodes):
                places[node] = left + column * (_WIDTH + _GAP_X), row * (_HEIGHT + _GAP_Y)
            row += 1
    return places


def svg_group(picture: Picture) -> str:
    """Edges and nodes as SVG elements."""
    places = _places(picture)
    parts = [
        f'<path class="edge" data-from="{edge[0]}" data-to="{edge[1]}" marker-end="url(#tip)" '
        f'd="{_curve(places, edge)}"/>'
        for edge in picture.edges
    ]
    for node in picture.nodes:
        x, y = places[node.id]
        short = node.label if len(node.label) <= _LETTERS else node.label[: _LETTERS - 1] + "…"
        parts.append(
            f'<g class="node {node.kind}" data-id="{node.id}" data-label="{escape(node.label)}">'
            f"<title>{escape(node.label)}</title>"
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{3 if node.kind == "message" else 12}"/>'
            f'<text x="{x + _WIDTH / 2}" y="{y + _HEIGHT / 2 + 1}" text-anchor="middle">{escape(short)}</text></g>'
        )
    return "\n".join(parts)


def _curve(places: Mapping[int, tuple[float, float]], edge: tuple[int, int]) -> str:
    (x1, y1), (x2, y2) = places[edge[0]], places[edge[1]]
    x1, x2 = x1 + _WIDTH / 2, x2 + _WIDTH / 2
    if y2 > y1:
        y1, bend = y1 + _HEIGHT, (y2 - y1) / 2
        return f"M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + bend:.0f} {x2:.0f},{y2 - bend:.0f} {x2:.0f},{y2:.0f}"
    side = max(x1, x2) + _WIDTH  # a way back goes around
    y1, y2 = y1 + _HEIGHT / 2, y2 + _HEIGHT / 2
    return f"M{x1 + _WIDTH / 2:.0f},{y1:.0f} C{side:.0f},{y1:.0f} {side:.0f},{y2:.0f} {x2 + _WIDTH / 2:.0f},{y2:.0f}"


def draw(picture: Picture, title: str) -> str:
    """The page."""
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#999"/></marker></defs>'
    )
    bar = (
        f'<div id="bar">{escape(title)} &nbsp; '
        '<input id="search" type="search" placeholder="search, Enter for the next" '
        'title="point at a node to see what leads to it and what follows"> '
        '<span id="count"></span> <button id="fit" type="button">whole picture</button></div>'
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>"
        f'<svg id="stage" xmlns="http://www.w3.org/2000/svg">{tip}<g id="view">\n{svg_group(picture)}\n</g></svg>'
        f"{bar}\n<script>{_SCRIPT}</script></body></html>\n"
    )
