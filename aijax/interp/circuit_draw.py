"""Pictures of circuits: the graph from the input below to the output above, and the curves."""

import re
from pathlib import Path

import numpy as np

from aijax.errors import ConfigError
from aijax.interp.circuit_curves import Curves
from aijax.interp.circuits import Circuit

COLOURS = {"+": "tab:blue", "-": "tab:red"}
SHIFTS = {"q": -0.14, "v": 0.14}
"""How far from the middle of a head its queries and values arrive."""


def draw_circuit(path: str | Path, circuit: Circuit, *, max_edges: int = 100) -> None:
    """Writes a picture of a circuit to a PNG, SVG or PDF file.

    Components stand in rows as they are run. A line is as wide as the score of its edge is large, blue where patching
    it raises the behaviour and red where it lowers it; queries, keys and values arrive from the left to the right.

    Args:
      path: where; its folder is made.
      circuit: of `circuit_discovery`.
      max_edges: how many are drawn, those of the largest score.

    Raises:
      ConfigError: a circuit of no edges.
    """
    from matplotlib.figure import Figure

    edges = circuit.edges()[:max_edges]
    if not edges:
        raise ConfigError("circuit: expected one with edges, got none")
    places, rows = _places(circuit)
    most = max(abs(score) for _, score in edges) or 1.0
    figure = Figure(figsize=(1.5 + max(map(len, rows)), 1.0 + 0.9 * len(rows)), layout="constrained")
    panel = figure.subplots()
    busy, arrivals = set(), {}
    for name, score in reversed(edges):
        writer, reader = name.split("->")
        component, use = re.fullmatch(r"(.*?)(?:<(\w+)>)?", reader).groups()
        (x, y), (to_x, to_y) = places[writer], places[component]
        shift = SHIFTS.get(use, 0.0)
        share = abs(score) / most
        line = {"linewidth": 0.5 + 4 * share, "alpha": 0.35 + 0.6 * share, "color": COLOURS["-" if score < 0 else "+"]}
        panel.plot([x, to_x + shift], [y, to_y - 0.14], solid_capstyle="round", zorder=1, **line)
        busy |= {writer, component}
        arrivals[to_x + shift, to_y - 0.14] = use or ""
    for (x, y), use in arrivals.items():
        panel.text(x, y - 0.02, use, fontsize=6, ha="center", va="bottom", zorder=3)
    for component, (x, y) in places.items():
        shown = {"facecolor": "white", "edgecolor": "black" if component in busy else "lightgrey"}
        panel.text(
            x, y, component, ha="center", va="center", fontsize=7, zorder=2,
            color="black" if component in busy else "grey", bbox={"boxstyle": "round", **shown},
        )  # fmt: skip
    widest = max(map(len, rows)) / 2
    panel.set(xlim=(-widest, widest), ylim=(-0.6, len(rows) - 0.4))
    panel.set_title(f"{len(edges)} edges, faithfulness {float(circuit.faithfulness):.2f}", fontsize=9)
    panel.axis("off")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def draw_curves(path: str | Path, curves: Curves) -> None:
    """Writes faithfulness, completeness and minimality by the number of edges to a file, with the range of random ones.

    Args:
      path: where; its folder is made.
      curves: of `circuit_curves`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    sizes = np.asarray(curves.best.sizes)
    for panel, name in zip(figure.subplots(1, 3), ("faithfulness", "completeness", "minimality"), strict=True):
        random = np.asarray(getattr(curves.random, name))
        panel.plot(sizes, np.asarray(getattr(curves.best, name)), ".-", label="by score")
        panel.plot(sizes, random.mean(0), "--", color="grey", label="random")
        panel.fill_between(sizes, random.min(0), random.max(0), color="grey", alpha=0.25, linewidth=0)
        panel.set(xlabel="edges", ylabel=name, xscale="log")
    panel.legend()
    figure.suptitle(f"CPR {float(curves.cpr):.3f}, CMD {float(curves.cmd):.3f}", fontsize=9)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _places(circuit):
    """Where components stand, and the rows: parts of one component side by side, components in order of their run."""
    graph, rows = circuit.graph, []
    for site in graph.writer_sites:
        rows.append(list(graph.writers[site.rows]))
    last = [reader for reader, fed in zip(graph.readers, graph.feeds, strict=True) if not fed]
    rows.append(list(dict.fromkeys(re.sub(r"<\w+>$", "", reader) for reader in last)))
    return {
        component: (number - (len(row) - 1) / 2, height)
        for height, row in enumerate(rows)
        for number, component in enumerate(row)
    }, rows
