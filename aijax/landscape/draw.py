"""Pictures of surfaces: a curve along one direction; contours or relief over two, with a trajectory on it."""

from pathlib import Path

import numpy as np

from aijax.errors import ConfigError, choose
from aijax.landscape.surface import Surface
from aijax.typing import Array, Float


def draw_surface(
    path: str | Path,
    found: Surface,
    *,
    style: str = "contours",
    trajectory: Float[Array, "n 2"] | None = None,
    log_scale: bool = False,
) -> None:
    """Writes a picture of a surface to a PNG, SVG or PDF file.

    Args:
      path: where; its folder is made.
      found: of `surface`.
      style: of a surface over two directions, "contours" or "relief" (a view in three dimensions).
      trajectory: coordinates along the two directions, drawn from the first to the last point.
      log_scale: heights are those of the logarithm of the loss, which must be positive.

    Raises:
      ConfigError: a logarithm of losses that are not positive, a trajectory over one direction, an unknown style.
    """
    from matplotlib.figure import Figure

    drawn = choose({"contours": _contours, "relief": _relief}, style, "style")
    axes, values = [np.asarray(axis) for axis in found.axes], np.asarray(found.values)
    if log_scale and not (values > 0).all():
        raise ConfigError(f"log_scale: expected positive losses, got {values.min():.3g}")
    if trajectory is not None and len(axes) != 2:
        raise ConfigError("trajectory: expected a surface over two directions, got one over one")
    figure = Figure(figsize=(5, 4), layout="constrained")
    if len(axes) == 1:
        panel = figure.subplots()
        panel.plot(axes[0], values)
        panel.set(xlabel="step along the direction", ylabel="loss", yscale="log" if log_scale else "linear")
    else:
        heights = np.log10(values) if log_scale else values
        drawn(figure, axes, heights, None if trajectory is None else np.asarray(trajectory), log_scale)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _contours(figure, axes, heights, trajectory, log_scale):
    panel = figure.subplots()
    # rows of the surface are steps along the first direction
    shades = panel.contourf(axes[0], axes[1], heights.T, levels=30, cmap="viridis")
    figure.colorbar(shades, label="log10 loss" if log_scale else "loss")
    if trajectory is not None:
        panel.plot(trajectory[:, 0], trajectory[:, 1], ".-", color="white", markersize=4, linewidth=1)
        panel.plot(*trajectory[-1], "*", color="red", markersize=10)
    panel.set(xlabel="first direction", ylabel="second direction")


def _relief(figure, axes, heights, trajectory, log_scale):
    panel = figure.add_subplot(projection="3d")
    first, second = np.meshgrid(*axes, indexing="ij")
    panel.plot_surface(first, second, heights, cmap="viridis", linewidth=0, alpha=0.9)
    if trajectory is not None:
        rows, columns = (
            np.abs(axis[:, None] - place).argmin(0) for axis, place in zip(axes, trajectory.T, strict=True)
        )
        panel.plot(trajectory[:, 0], trajectory[:, 1], heights[rows, columns], color="red")
    panel.locator_params(nbins=5)
    panel.set(xlabel="first direction", ylabel="second direction", zlabel="log10 loss" if log_scale else "loss")
