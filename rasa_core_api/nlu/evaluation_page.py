"""An evaluation as one HTML page: figures, confusions and confidences, drawn in SVG, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from rasa_core_api.nlu.evaluation import Answer, Evaluation, Score, averages, is_error, total

MOST_ERRORS = 500  # listed; the JSON file has all
_CELL = 22  # pixels of a cell in the matrix of confusions
_LETTER = 6.4  # pixels of a letter of its labels
_LONGEST = 32  # letters of a label
_TALLEST = 160  # pixels of the highest bar of the confidences
_BARS = "Right answers go up, wrong ones down. Height is the share of all right, or of all wrong, ones; figures count."

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --paper: #fff; --faint: #e6ebf0; --good: #2a7f62; --bad: #c8553d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe6ee; --paper: #14191f; --faint: #2b343f; --good: #4db592; --bad: #e8795f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.figures { display: flex; flex-wrap: wrap; gap: 1rem }
.figures div { background: var(--faint); border-radius: .5rem; padding: .6rem 1rem }
.figures b { display: block; font-size: 1.4rem }
table { border-collapse: collapse }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid var(--faint) }
th:first-child, td:first-child, .text { text-align: left }
.wide { overflow-x: auto } svg text { fill: var(--ink); font: 11px system-ui, sans-serif }
svg text.over { fill: var(--paper) }
.good { fill: var(--good) } .bad { fill: var(--bad) } .line { stroke: var(--faint) }
"""


def page(evaluation: Evaluation) -> str:
    """The page's text."""
    intents, entities = evaluation.intents(), evaluation.entities()
    judged = evaluation.judged()
    parts = [f"<h1>{escape(evaluation.title or 'NLU evaluation')}</h1>", '<div class="figures">']
    parts.append(_figure("examples", str(len(evaluation.answers))))
    if judged:
        parts.append(_figure("intent accuracy", f"{evaluation.accuracy():.3f}"))
        parts.append(_figure("intent F1, macro", f"{averages(intents)['macro_f1']:.3f}"))
        parts.append(_figure("intent F1, weighted", f"{averages(intents)['weighted_f1']:.3f}"))
    if entities:
        parts.append(_figure("entity F1", f"{total(entities).f1:.3f}"))
    parts.append("</div>")
    if judged:
        parts += [
            "<h2>Which intents are taken for which</h2>",
            "<p>Rows are what is right, columns what was found.</p>",
        ]
        parts += ['<div class="wide">', _matrix(evaluation), "</div>"]
        parts += ["<h2>How sure it was</h2>", f"<p>{_BARS}</p>", _histogram(evaluation)]
        parts += [_coverage(evaluation), "<h2>Intents</h2>", _table("intent", intents)]
    if entities:
        parts += ["<h2>Entities</h2>", _table("entity", {**entities, "all": total(entities)})]
    errors = [answer for answer in evaluation.answers if is_error(answer)]
    if errors:
        parts += [f"<h2>Errors ({len(errors)})</h2>", _errors(errors[:MOST_ERRORS])]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(evaluation.title or 'NLU evaluation')}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _figure(name: str, value: str) -> str:
    return f"<div><b>{value}</b>{name}</div>"


def _short(name: str) -> str:
    return escape(name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…")


def _matrix(evaluation: Evaluation) -> str:
    names, counts = evaluation.confusion()
    rows = {name: sum(counts.get((name, other), 0) for other in names) for name in names}
    margin = round(_LETTER * min(_LONGEST, max(len(name) for name in names))) + 12
    side = margin + _CELL * len(names)
    parts = [
        f'<svg role="img" aria-label="matrix of confusions" width="{side}" height="{side}" viewBox="0 0 {side} {side}">'
    ]
    for number, name in enumerate(names):
        place = margin + _CELL * number
        middle = place + _CELL / 2 + 4
        label = f"<title>{escape(name)}</title>{_short(name)}"
        parts.append(f'<text x="{margin - 6}" y="{middle}" text-anchor="end">{label}</text>')
        parts.append(f'<text transform="translate({middle} {margin - 6}) rotate(-90)">{label}</text>')
        parts.append(f'<line class="line" x1="{margin}" x2="{side}" y1="{place}" y2="{place}"/>')
        parts.append(f'<line class="line" y1="{margin}" y2="{side}" x1="{place}" x2="{place}"/>')
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            count = counts.get((name, other), 0)
            if count:
                x, y = margin + _CELL * column, margin + _CELL * row
                kind = "good" if row == column else "bad"
                shade = 0.15 + 0.85 * count / rows[name]
                ink = "over" if shade > 0.6 else "beside"
                hint = escape(f"{name} → {other}: {count} of {rows[name]}")
                parts.append(
                    f"<g><title>{hint}</title>"
                    f'<rect class="{kind}" fill-opacity="{shade:.2f}" x="{x + 1}" y="{y + 1}" '
                    f'width="{_CELL - 2}" height="{_CELL - 2}"/>'
                    f'<text class="{ink}" x="{x + _CELL / 2}" y="{y + _CELL / 2 + 4}" '
                    f'text-anchor="middle">{count}</text></g>'
                )
    return "".join([*parts, "</svg>"])


def _histogram(evaluation: Evaluation) -> str:
    """Bars as high as the share of the right, or of the wrong, answers; by number the few wrong ones would vanish."""
    bins = evaluation.histogram()
    all_right, all_wrong = (max(1, sum(bar[kind] for bar in bins)) for kind in (1, 2))
    most_right, most_wrong = max(bar[1] for bar in bins) / all_right, max(bar[2] for bar in bins) / all_wrong
    scale = _TALLEST / max(most_right, most_wrong)
    middle = 20 + scale * most_right
    bottom = middle + scale * most_wrong + 34
    width = 36
    total_width = width * len(bins) + 40
    parts = [
        f'<svg role="img" aria-label="confidences of right and wrong answers" width="{total_width}" '
        f'height="{bottom + 8:.0f}" viewBox="0 0 {total_width} {bottom + 8:.0f}">'
    ]
    for number, (low, right, wrong) in enumerate(bins):
        x = 20 + number * width
        for kind, count, share in (("good", right, right / all_right), ("bad", wrong, wrong / all_wrong)):
            if count:
                height = scale * share
                y = middle - height if kind == "good" else middle
                text = y - 4 if kind == "good" else y + height + 12
                parts.append(
                    f'<rect class="{kind}" x="{x + 2}" y="{y:.1f}" width="{width - 4}" height="{height:.1f}"/>'
                )
                parts.append(f'<text x="{x + width / 2}" y="{text:.1f}" text-anchor="middle">{count}</text>')
        parts.append(f'<text x="{x}" y="{bottom:.1f}" text-anchor="middle">{low:.2f}</text>')
    parts.append(f'<text x="{total_width - 20}" y="{bottom:.1f}" text-anchor="middle">1.00</text>')
    parts.append(f'<line class="line" x1="20" x2="{total_width - 20}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
    return "".join([*parts, "</svg>"])


def _coverage(evaluation: Evaluation) -> str:
    rows = "".join(
        f"<tr><td>{threshold:.1f}</td><td>{right:.1%}</td><td>{wrong:.1%}</td></tr>"
        for threshold, right, wrong in evaluation.coverage()
    )
    return f"<table><tr><th>nlu_threshold</th><th>right answers pass</th><th>wrong answers pass</th></tr>{rows}</table>"


def _table(kind: str, scores: Mapping[str, Score]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{score.precision:.3f}</td><td>{score.recall:.3f}</td>"
        f"<td>{score.f1:.3f}</td><td>{score.support}</td></tr>"
        for name, score in scores.items()
    )
    head = f"<tr><th>{kind}</th><th>precision</th><th>recall</th><th>F1</th><th>examples</th></tr>"
    return f"<table>{head}{rows}</table>"


def _errors(errors: list[Answer]) -> str:
    head = '<tr><th>text</th><th class="text">right</th><th class="text">found</th><th>confidence</th></tr>'
    rows = []
    for answer in sorted(errors, key=lambda answer: -answer.confidence):
        right, found = _said(answer.expected, answer.expected_entities), _said(answer.found, answer.found_entities)
        rows.append(
            f'<tr><td>{escape(answer.text)}</td><td class="text">{right}</td><td class="text">{found}</td>'
            f"<td>{answer.confidence:.2f}</td></tr>"
        )
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _said(intent: str | None, entities: tuple[tuple[int, int, str], ...]) -> str:
    spans = "".join(f" [{start}–{end} {entity}]" for start, end, entity in entities)
    return escape(f"{intent or ''}{spans}")
