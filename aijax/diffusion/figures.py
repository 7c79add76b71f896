"""Pictures side by side: one image of many, and a figure with a panel for each kind."""

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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.5 * columns * len(pictures), 0.55 * rows), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True):
        shown = min(rows, len(images) // columns)
        grid = images[: shown * columns].reshape(shown, columns, *images.shape[1:])
        axes.imshow(tile(grid), cmap="gray", vmin=0, vmax=1)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_axis_off()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
