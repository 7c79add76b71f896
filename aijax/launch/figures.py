"""The curves of a run as a PNG: one panel a metric, training in one colour and each evaluation in another."""

import math
from pathlib import Path

from aijax.train.sinks import read_lines

COLOURS = ("#4878a8", "#d1605e", "#6a9f58", "#e49444", "#8b6ca8")
COLUMNS = 3


def draw_curves(folder: Path) -> Path | None:
    """Writes `figures/curves.png` of the run in `folder` and returns its path, or None when nothing was recorded."""
    from matplotlib.figure import Figure

    panels = metric_panels(read_lines(folder / "metrics.jsonl"))
    if not panels:
        return None
    rows = math.ceil(len(panels) / COLUMNS)
    columns = min(COLUMNS, len(panels))
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    for index, (metric, curves) in enumerate(sorted(panels.items())):
        axes = figure.add_subplot(rows, columns, index + 1)
        for colour, (name, points) in zip(COLOURS * len(curves), sorted(curves.items()), strict=False):
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=name, color=colour, marker="." if len(points) < 20 else None, linewidth=1.4)
        axes.set_title(metric.replace("_", " "), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        if len(curves) > 1:
            axes.legend(fontsize=8, frameon=False)
    path = folder / "figures" / "curves.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def metric_panels(records: list[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Returns `{metric: {set: [(step, value)]}}` of a run's records, the metric `test/loss` being `loss` of `test`.

    >>> metric_panels([{"step": 1, "seconds": 0.1, "train/loss": 2.0}, {"step": 1, "seconds": 0.2, "test/loss": 3.0}])
    {'loss': {'train': [(1, 2.0)], 'test': [(1, 3.0)]}}
    """
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for record in records:
        for name, value in record.items():
            if name not in ("step", "seconds"):
                of, _, metric = name.rpartition("/")
                panels.setdefault(metric, {}).setdefault(of or "run", []).append((record["step"], value))
    return panels
