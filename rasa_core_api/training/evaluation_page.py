"""The result of an evaluation, and of a comparison, as one HTML page with its pictures in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from rasa_core_api.training.evaluation import Evaluation

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } pre { background: #f6f6f6; padding: 1em; overflow: auto }
.wide { overflow: auto } svg text { dominant-baseline: auto } .wrong { color: #b00020; font-weight: bold }
"""
_CELL = 22
_COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#34495e", "#16a085", "#7f8c8d")


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    content = f"<body><h1>{escape(title)}</h1>\n{body}</body>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n{content}</html>\n'


def evaluation_page(evaluation: Evaluation) -> str:
    """Figures, confusion matrix and failed stories."""
    right, stories = evaluation.correct_stories, evaluation.stories
    facts = [
        f"<p>{right} of {stories} stories are predicted without a mistake; "
        f"{evaluation.accuracy:.1%} of {len(evaluation.pairs)} predictions are right.</p>",
        "<h2>Labels</h2><table><tr><th>label</th><th>precision</th><th>recall</th><th>F1</th><th>support</th></tr>",
        *(
            f"<tr><td>{escape(row.label)}</td><td>{row.precision:.3f}</td><td>{row.recall:.3f}</td>"
            f"<td>{row.f1:.3f}</td><td>{row.support}</td></tr>"
            for row in evaluation.rows()
        ),
        "</table>",
        "<h2>Most common mistakes</h2>",
        _mistakes(evaluation.pairs),
        "<h2>Confusion</h2><p>Rows are what the stories have, columns what was predicted.</p>",
        f'<div class="wide">{confusion_svg(evaluation.pairs)}</div>',
        "<h2>Failed stories</h2>",
        f"<pre>{_marked(evaluation.failed_stories())}</pre>",
    ]
    return _page("Evaluation of the stories", "\n".join(facts))


_SHOWN = 15  # of the most common mistakes


def _mistakes(pairs: Sequence[tuple[str, str]]) -> str:
    common = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(_SHOWN)
    if not common:
        return "<p>None.</p>"
    rows = (
        f"<tr><td>{escape(wanted)}</td><td>{escape(found)}</td><td>{count}</td></tr>"
        for (wanted, found), count in common
    )
    return f"<table><tr><th>in the stories</th><th>predicted</th><th>times</th></tr>{''.join(rows)}</table>"


def _marked(stories: str) -> str:
    """The stories with the wrong predictions in colour."""
    return "\n".join(
        f'<span class="wrong">{escape(line)}</span>' if "<!-- predicted" in line else escape(line)
        for line in stories.split("\n")
    )


def confusion_svg(pairs: Sequence[tuple[str, str]]) -> str:
    """The confusion matrix; a cell is as dark as its share of the row."""
    labels = sorted({label for pair in pairs for label in pair})
    place = {label: number for number, label in enumerate(labels)}
    counts: dict[tuple[int, int], int] = {}
    for wanted, found in pairs:
        key = place[wanted], place[found]
        counts[key] = counts.get(key, 0) + 1
    totals = [sum(count for (row, _), count in counts.items() if row == number) for number in range(len(labels))]
    margin = 12 + 7 * max((len(label) for label in labels), default=0)
    size = margin + _CELL * len(labels) + 4
    parts = [
        f'<svg viewBox="0 0 {size} {size}" width="{size}" height="{size}" xmlns="http://www.w3.org/2000/svg" '
        'font-family="monospace" font-size="11">'
    ]
    for number, label in enumerate(labels):
        at = margin + _CELL * number + _CELL * 0.7
        parts.append(f'<text x="{margin - 6}" y="{at}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<text transform="translate({at},{margin - 6}) rotate(-90)">{escape(label)}</text>')
    for number in range(0, len(labels) + 1, 5):  # guides for the eye
        at, end = margin + _CELL * number, margin + _CELL * len(labels)
        parts.append(f'<path d="M{margin},{at} H{end} M{at},{margin} V{end}" stroke="#ddd"/>')
    for (row, column), count in sorted(counts.items()):
        x, y = margin + _CELL * column, margin + _CELL * row
        share = count / totals[row]
        colour = "27,108,168" if row == column else "176,0,32"
        ink = "#fff" if share > 0.5 else "#222"
        title = f"{labels[row]} predicted as {labels[column]}: {count}"
        parts.append(
            f'<g><title>{escape(title)}</title><rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" '
            f'fill="rgba({colour},{0.15 + 0.85 * share:.2f})"/>'
            f'<text x="{x + _CELL / 2}" y="{y + _CELL * 0.7}" text-anchor="middle" fill="{ink}">{count}</text></g>'
        )
    parts.append("</svg>")
    return "".join(parts)


def comparison_page(results: Mapping[str, Sequence[Sequence[int]]], counts: Sequence[int]) -> str:
    """Correct stories over the number of stories that each policy was trained on, mean and range of the runs."""
    width, height, left, bottom = 760, 420, 60, 50
    most = max((value for runs in results.values() for run in runs for value in run), default=1) or 1
    widest = max(counts, default=1) or 1

    def point(count: int, value: float) -> tuple[float, float]:
        return left + (width - left - 20) * count / widest, height - bottom - (height - bottom - 20) * value / most

    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg" '
        'font-size="12">'
    ]
    for value in _ticks(most):
        y = point(0, value)[1]
        parts.append(f'<line x1="{left}" x2="{width - 20}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{value}</text>')
    for count in _ticks(widest):
        x = point(count, 0)[0]
        parts.append(f'<text x="{x}" y="{height - bottom + 18}" text-anchor="middle">{count}</text>')
    parts.append(f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">story steps in training</text>')
    for number, (name, runs) in enumerate(results.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = f'stroke-dasharray="{8 + 4 * number} {6 * number}"' if number else ""  # lines may lie on each other
        columns = list(zip(*runs, strict=True))
        means = [sum(column) / len(column) for column in columns]
        line = " ".join("{:.1f},{:.1f}".format(*point(n, v)) for n, v in zip(counts, means, strict=True))
        upper = [point(n, max(column)) for n, column in zip(counts, columns, strict=True)]
        lower = [point(n, min(column)) for n, column in zip(counts, columns, strict=True)]
        area = " ".join("{:.1f},{:.1f}".format(*p) for p in [*upper, *reversed(lower)])
        parts.append(f'<polygon points="{area}" fill="{colour}" opacity="0.15"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" {dashes}/>')
        y = 20 + 18 * number
        parts.append(f'<text x="{left + 10}" y="{y}" fill="{colour}">{escape(name)}</text>')
    parts.append("</svg>")
    head = "".join(f"<th>{count}</th>" for count in counts)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{sum(column) / len(column):.1f}</td>" for column in zip(*runs, strict=True))
        + "</tr>"
        for name, runs in results.items()
    )
    most_runs = max((len(found) for found in results.values()), default=0)
    table = f"<p>Means of {most_runs} runs:</p><table><tr><th>story steps in training</th>{head}</tr>{rows}</table>"
    return _page("Correct stories by the number of story steps in training", "".join(parts) + table)


def _ticks(most: int) -> list[int]:
    """About five round numbers from 0 to `most`."""
    step = next(size * 10**power for power in range(12) for size in (1, 2, 5) if size * 10**power * 6 >= most)
    return list(range(0, most + 1, step))
