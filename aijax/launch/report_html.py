"""The report as one HTML page that needs nothing beside it: tables, curves as inline SVG, figures as base64."""

import base64
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Any

from aijax.launch.curves import COLOURS, chart
from aijax.launch.runs import MISSING, TELEMETRY, Run, best_value, config_differences, main_metric, metric_names

_LIGHT = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#65a30d", "#57534e", "#1e3a8a")
_DARK = ("#60a5fa", "#f87171", "#34d399", "#fbbf24", "#a78bfa", "#22d3ee", "#f472b6", "#a3e635", "#d6d3d1", "#c7d2fe")

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #16202e; --muted: #667085; --line: #e4e7ec;
  --soft: #f2f4f7; --best: #e7f6ec; --good: #067647; --warn: #b54708; --bad: #b42318; LIGHT }
@media (prefers-color-scheme: dark) { :root { --page: #0e1319; --card: #171d26; --text: #e6eaf0; --muted: #94a0b0;
  --line: #2a323e; --soft: #1e2530; --best: #14352a; --good: #4cc38a; --warn: #f5b83d; --bad: #ff7a70; DARK } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 36px 28px 64px }
h1 { font-size: 25px; line-height: 1.25; font-weight: 680; letter-spacing: -.015em; margin: 0 }
h2 { font-size: 16px; font-weight: 640; margin: 38px 0 12px }
h3 { font-size: 13px; font-weight: 600; margin: 0 0 6px; overflow-wrap: anywhere }
.lead, .small { color: var(--muted) } .lead { margin: 6px 0 0 } .small { font-size: 12px }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; box-shadow: 0 1px 2px #1018280a }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 9px 14px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { font-size: 12px; font-weight: 600; color: var(--muted); background: var(--soft); white-space: nowrap }
thead th:first-child { border-top-left-radius: 12px } thead th:last-child { border-top-right-radius: 12px }
tbody tr:last-child > * { border-bottom: 0 }
tbody th { font-weight: 600; overflow-wrap: anywhere; min-width: 170px }
.number { text-align: right; white-space: nowrap } td.best { background: var(--best); font-weight: 650 }
code, .value { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 9px; flex: none;
  background: currentColor }
.status { white-space: nowrap; font-weight: 600; color: var(--muted) }
.finished { color: var(--good) } .stopped { color: var(--warn) } .failed { color: var(--bad) }
.note { font-weight: 400; color: var(--warn); font-size: 12px; display: block; margin-left: 19px }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 0 0 14px; padding: 0; list-style: none }
.legend li { display: flex; align-items: center; overflow-wrap: anywhere }
.legend svg { width: 26px; height: 10px; margin-right: 8px; flex: none }
.grid-of-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 370px), 1fr)); gap: 16px }
.grid-of-cards .card { padding: 14px 16px 12px; margin: 0; min-width: 0 }
.card svg, .card img { display: block; width: 100%; height: auto } .card img { border-radius: 6px; background: #fff }
figcaption { margin-top: 8px; font-size: 12px; color: var(--muted); overflow-wrap: anywhere }
svg .grid { stroke: var(--line); stroke-width: 1 } svg .axis { stroke: var(--muted); stroke-width: 1; fill: none }
svg .tick { fill: var(--muted); font-size: 11.5px } svg .line { fill: none; stroke: currentColor; stroke-width: 1.9;
  stroke-linejoin: round; stroke-linecap: round } svg .band { fill: currentColor; opacity: .14 }
svg .dot { fill: currentColor } .dash1 { stroke-dasharray: 6 4 } .dash2 { stroke-dasharray: 2 4 }
.dash3 { stroke-dasharray: 9 4 2 4 }
details summary { cursor: pointer; padding: 11px 16px; font-weight: 600 }
details .fields { columns: 340px; column-gap: 28px; padding: 2px 16px 14px; margin: 0 }
details .fields div { display: flex; justify-content: space-between; gap: 14px; padding: 2px 0; break-inside: avoid }
.fields dt { color: var(--muted) } .fields dd { margin: 0; text-align: right; overflow-wrap: anywhere }
@media print { body { background: #fff } .card { box-shadow: none; break-inside: avoid } }
COLOURS
"""


def render_page(runs: Sequence[Run]) -> str:
    """Returns the HTML page that compares `runs`, in their order; it refers to no other file or site."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    finished = sum(run.summary.get("status") == "finished" for run in runs)
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    lead = f"{finished} of {len(runs)} finished · experiment {_experiments(runs)} · written {made}"
    sections = [_runs_section(runs), _differences_section(runs), _curves_section(runs), _figures_section(runs)]
    sections.append(_shared_section(runs))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>aijax: {escape(title)}</title><style>{_style()}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{"".join(sections)}</main></body></html>\n'
    )


def _style() -> str:
    light = " ".join(f"--c{index}: {colour};" for index, colour in enumerate(_LIGHT))
    dark = " ".join(f"--c{index}: {colour};" for index, colour in enumerate(_DARK))
    classes = " ".join(f".c{index} {{ color: var(--c{index}) }}" for index in range(COLOURS))
    return _STYLE.replace("LIGHT", light).replace("DARK", dark).replace("COLOURS", classes)


def _experiments(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(str(run.config.get("experiment", "?")) for run in runs))


def _runs_section(runs: Sequence[Run]) -> str:
    metrics = metric_names(runs)
    head = ["run", "status", *metrics, "step", "time", "parameters"]
    classes = ["", "", *["number"] * (len(head) - 2)]
    rows = []
    for number, run in enumerate(runs):
        status = str(run.summary.get("status", "unfinished"))
        notes = [*run.notes, str(run.summary.get("message") or "")]
        told = "".join(f'<span class="note">{escape(note)}</span>' for note in notes if note)
        cells = [f"<th>{_swatch(number)}{escape(run.name)}{told}</th>"]
        cells.append(f'<td><span class="status {escape(status)}">{escape(status)}</span></td>')
        cells += [_metric_cell(runs, run, metric) for metric in metrics]
        cells += [f'<td class="number">{text}</td>' for text in (_step(run), _time(run), _count(run, "parameters"))]
        rows.append("".join(cells))
    return "<h2>Runs</h2>" + _table(head, classes, rows)


def _differences_section(runs: Sequence[Run]) -> str:
    differences = config_differences(runs)
    if len(runs) < 2:
        return ""
    if not differences:
        return '<h2>Config</h2><p class="lead">The configs of these runs are the same.</p>'
    rows = []
    for number, run in enumerate(runs):
        values = "".join(f'<td class="value">{escape(_value(row[number]))}</td>' for row in differences.values())
        rows.append(f"<th>{_swatch(number)}{escape(run.name)}</th>{values}")
    return "<h2>Where the configs differ</h2>" + _table(["run", *differences], [""] * (1 + len(differences)), rows)


def _curves_section(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.curves))
    first = main_metric(names)
    names.sort(key=lambda name: (name != first, name.endswith(TELEMETRY), not name.endswith("loss")))
    cards = []
    for name in names:
        curves = [(number, run.curves[name]) for number, run in enumerate(runs) if name in run.curves]
        picture = chart(curves, name)
        odd = sum(not math.isfinite(value) for _, curve in curves for _, value in curve)
        note = f'<p class="small">{odd} values that are not finite are not drawn.</p>' if odd else ""
        cards.append(f'<div class="card"><h3>{escape(name)}</h3>{picture}{note}</div>')
    if not cards:
        return ""
    legend = "".join(
        f'<li><svg viewBox="0 0 26 10"><path class="line c{number % COLOURS} dash{number // COLOURS % 4}" d="M2 5H24"/>'
        f"</svg>{escape(run.name)}</li>"
        for number, run in enumerate(runs)
    )
    return f'<h2>Curves</h2><ul class="legend">{legend}</ul><div class="grid-of-cards">{"".join(cards)}</div>'


def _figures_section(runs: Sequence[Run]) -> str:
    cards = []
    for number, run in enumerate(runs):
        for figure in run.figures:
            data = base64.b64encode(figure.read_bytes()).decode("ascii")
            caption = f"{_swatch(number)}{escape(run.name)} · {escape(figure.stem)}"
            cards.append(
                f'<figure class="card"><img alt="{escape(figure.stem)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    return f'<h2>Figures</h2><div class="grid-of-cards">{"".join(cards)}</div>' if cards else ""


def _shared_section(runs: Sequence[Run]) -> str:
    differing = config_differences(runs)
    shared = {path: value for path, value in runs[0].config.items() if path not in differing}
    pairs = [(escape(path), escape(_value(value))) for path, value in shared.items()]
    fields = "".join(f'<div><dt>{path}</dt><dd class="value">{value}</dd></div>' for path, value in pairs)
    title = "The config" if len(runs) == 1 else "What the configs share"
    details = f'<summary>{len(shared)} fields</summary><dl class="fields">{fields}</dl>'
    return f'<h2>{title}</h2><details class="card">{details}</details>'


def _table(head: Iterable[str], classes: Sequence[str], rows: Iterable[str]) -> str:
    columns = "".join(f'<th class="{kind}">{escape(text)}</th>' for text, kind in zip(head, classes, strict=True))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="card scroll"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _swatch(number: int) -> str:
    return f'<span class="swatch c{number % COLOURS}"></span>'


def _metric_cell(runs: Sequence[Run], run: Run, metric: str) -> str:
    if metric not in run.metrics:
        return '<td class="number">–</td>'
    kind = "number best" if run.metrics[metric] == best_value(runs, metric) else "number"
    return f'<td class="{kind}">{run.metrics[metric]:.4g}</td>'


def _value(value: Any) -> str:
    return "–" if value is MISSING else str(value)


def _count(run: Run, field: str) -> str:
    value = run.summary.get(field)
    return f"{value:,}" if isinstance(value, int) else "–"


def _step(run: Run) -> str:
    step, total = _count(run, "step"), run.summary.get("total_steps")
    return step if total in (None, run.summary.get("step")) else f"{step} of {total:,}"


def _time(run: Run) -> str:
    seconds = run.summary.get("seconds")
    if not isinstance(seconds, (int, float)):
        return "–"
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
