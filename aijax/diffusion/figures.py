"""Pictures side by side: one image of many, and a figure with a panel for each kind."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aijax.typing import Float, Mapping


def tile(grid: Float[np.ndarray, "r c h w k"]) -> np.ndarray:
    """Returns one image of `[rows, columns, h, w, k]`, a dark line above and to the left of each.

    >>> tile(np.ones((2, 3, 4, 4, 1))).shape
    (10, 15)
    """
    grid = np.pad(grid, ((0, 0), (0, 0), (1, 0), (1, 0), (0, 0)))
    rows, columns, h, w, c = grid.shape
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c).squeeze()


def draw_pictures(path: Path, pictures: Mapping[str, Float[np.ndarray, "n h w k"]], *, columns: int, rows: int = 8):
    """Writes a PNG with a panel for each of the named sets of pictures from 0 to 1, its first `rows` x `columns`."""
    panels = {}
    for name, images in pictures.items():
        shown = min(rows, len(images) // columns)
        panels[name.replace("_", " ")] = images[: shown * columns].reshape(shown, columns, *images.shape[1:]), None
    draw_grids(path, panels, size=(0.5 * columns * len(pictures), 0.55 * rows))


def draw_grids(
    path: Path,
    panels: Mapping[str, tuple[Float[np.ndarray, "r c h w k"], Sequence[str] | None]],
    *,
    size: tuple[float, float] = (12.0, 4.0),
):
    """Writes a PNG with a panel for each title: a grid of pictures from 0 to 1, and the labels of its rows or None."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, (grid, labels)) in zip(every, panels.items(), strict=True):
        axes.imshow(tile(grid), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        height = grid.shape[2] + 1
        axes.set_yticks([] if labels is None else height * (np.arange(len(grid)) + 0.5), labels or [], fontsize=8)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
