"""The empirical tangent kernel of a model over a data set, in a store that can be gone on with, and its spectrum.

`kernel/` of the run folder is a Zarr array `[n, n]`, the mean over outputs of Theta(x_i, x_j), written block by block
over the mesh; with `--processes` each process writes its own blocks. Of it: the trace; the eigenvalues, how fast they
fall, and their effective rank, (sum lambda)^2 / sum lambda^2; the condition number; the alignment of the centred kernel
with the classes, <K, Y Y^T> / (|K| |Y Y^T|) (Cortes, Mohri, Rostamizadeh 2012); and how much of the labels lies in the
leading eigenvectors, which is what gradient descent learns first.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from aijax import models, open_run
from aijax.binding import bind
from aijax.data import load_source
from aijax.data.augment import make_preprocess
from aijax.errors import ConfigError
from aijax.ntk.blocks import kernel_blocks
from aijax.ntk.factored import factored_ntk
from aijax.parallel import make_mesh

BLUE, RED, GREY, LINES = "#4878a8", "#d1605e", "#888888", "#8fd3f4"


def main(config, folder):
    """Returns the metrics of the kernel; writes `kernel/`, `figures/spectrum.png` and `figures/matrix.png`."""
    apply_fn, params, source = read_model(config)
    x, labels = read_examples(source, config)
    mesh = bind(make_mesh, config.get("mesh", {}), "config.mesh")()
    block_size = "auto" if config.block_size is None else config.block_size
    stored = kernel_blocks(
        factored_ntk(apply_fn, trace_outputs=True),
        x,
        kernel_args=(params,),
        block_size=block_size,
        mesh=mesh,
        store=folder / "kernel",
    )
    if jax.process_index() > 0:
        return {}
    kernel = np.asarray(stored, np.float64)
    eigenvalues, eigenvectors = np.linalg.eigh(kernel)
    eigenvalues, eigenvectors = eigenvalues[::-1], eigenvectors[:, ::-1]
    learned = label_energy(eigenvectors, labels)
    draw_spectrum(folder / "figures" / "spectrum.png", eigenvalues, learned)
    draw_matrix(folder / "figures" / "matrix.png", kernel, labels, source.classes, eigenvectors[:, 1])
    return measure(kernel, eigenvalues, labels, learned)


def read_model(config):
    """Returns `apply_fn(params, raw)`, the parameters and the data: of the run `config.run`, or at initialisation."""
    if config.run is not None:
        run = open_run(config.run)
        source = load_source(run.config.data, config.split, "config.data")
        return lambda params, raw: run.apply_fn(params, run.preprocess(raw)), run.params, source
    source = load_source(config.data, config.split)
    if source.classes is None:
        raise ConfigError(f"config.data.source: {config.data.source!r} has no classes")
    model = models.build(config.model, num_classes=len(source.classes))
    preprocess = make_preprocess(config.get("preprocess", {}))
    name = inputs_of(source)

    def prepared(raw):
        return preprocess({name: jnp.asarray(raw)})[name]

    spec = source.spec[name]
    example = jax.eval_shape(prepared, jax.ShapeDtypeStruct((1, *spec.shape), spec.dtype))
    params = jax.jit(lambda key: models.init(key, model, example))(jax.random.key(config.seed))
    return lambda params, raw: model.apply({"params": params}, prepared(raw)), params, source


def read_examples(source, config):
    """Returns the first `config.examples` inputs and their labels, or all of them."""
    count = len(source) if config.examples is None else config.examples
    if not 2 <= count <= len(source):
        raise ConfigError(f"config.examples: expected 2 to {len(source)} or None for all, got {count}")
    records = source[np.arange(count)]
    return records[inputs_of(source)], np.asarray(source.labels[:count])


def inputs_of(source):
    """Returns the name of what the model reads."""
    return "image" if "image" in source.spec else "x"


def label_energy(eigenvectors, labels):
    """Returns, for each k, the share of the centred one-hot labels that lies in the k leading eigenvectors."""
    targets = np.eye(labels.max() + 1)[labels]
    targets -= targets.mean(0)
    return np.cumsum(((eigenvectors.T @ targets) ** 2).sum(1)) / (targets**2).sum()


def measure(kernel, eigenvalues, labels, learned):
    """Returns the numbers that sum the kernel up."""
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    targets = (labels[:, None] == labels).astype(np.float64)
    targets += targets.mean() - targets.mean(0) - targets.mean(1)[:, None]
    return {
        "examples": len(kernel),
        "trace": float(np.trace(kernel)),
        **{f"eigenvalue_{k + 1}": float(eigenvalues[k]) for k in range(min(5, len(eigenvalues)))},
        "smallest_eigenvalue": float(eigenvalues[-1]),
        "condition_number": float(eigenvalues[0] / eigenvalues[-1]) if eigenvalues[-1] > 0 else float("inf"),
        "decay_exponent": decay_exponent(eigenvalues),
        "effective_rank": float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()),
        "target_alignment": float((centred * targets).sum() / np.linalg.norm(centred) / np.linalg.norm(targets)),
        "labels_in_100_eigenvectors": float(learned[min(100, len(learned)) - 1]),
    }


def decay_exponent(eigenvalues):
    """Returns a of the power law lambda_k ~ k^-a, by least squares over the fitted ranks, evenly in log k."""
    ranks = np.unique(np.geomspace(*fitted_ranks(eigenvalues), 100).astype(int))
    return float(-np.polyfit(np.log(ranks), np.log(np.maximum(eigenvalues[ranks - 1], 1e-300)), 1)[0])


def fitted_ranks(eigenvalues):
    """Returns the first and the last rank of the power law: 10 (less where there are few) to a third of all."""
    last = max(2, len(eigenvalues) // 3)
    return min(10, max(1, last // 2)), last


def draw_spectrum(path, eigenvalues, learned):
    """Draws the eigenvalues by rank, and the share of the labels that the leading eigenvectors hold."""
    ranks, exponent = np.arange(1, len(eigenvalues) + 1), decay_exponent(eigenvalues)
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    positive = eigenvalues > 0
    left.loglog(ranks[positive], eigenvalues[positive], color=BLUE, linewidth=1.8)
    span = np.array(fitted_ranks(eigenvalues))
    middle = int(np.sqrt(span.prod()))
    left.loglog(
        span, 2.5 * eigenvalues[middle - 1] * (span / middle) ** -exponent, color=GREY, linestyle="--", linewidth=1.2
    )
    left.annotate(
        f"$k^{{-{exponent:.2f}}}$", (middle, 2.5 * eigenvalues[middle - 1]), xytext=(6, 6), textcoords="offset points",
        color=GREY,
    )  # fmt: skip
    left.set(xlabel="rank $k$", ylabel=r"eigenvalue $\lambda_k$", title="Spectrum of the tangent kernel")
    right.semilogx(ranks, learned, color=RED, linewidth=1.8)
    right.set(
        xlabel="leading eigenvectors $k$", ylabel="share", title="Labels in the leading eigenvectors", ylim=(0, 1.02)
    )
    for axes in (left, right):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def draw_matrix(path, kernel, labels, classes, position):
    """Draws the cosines of the kernel, examples sorted by class and within each class by `position`."""
    order = np.lexsort((position, labels))
    scale = np.sqrt(np.maximum(np.diag(kernel), 1e-30))
    cosines = (kernel / scale / scale[:, None])[np.ix_(order, order)]
    low = np.quantile(cosines, 0.01)
    high = np.quantile(cosines[~np.eye(len(cosines), dtype=bool)], 0.995)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(cosines, cmap="magma", vmin=low, vmax=high, interpolation="antialiased")
    counts = np.bincount(labels)
    edges = np.cumsum(counts)
    for edge in edges[:-1]:
        axes.axhline(edge - 0.5, color=LINES, linewidth=0.6)
        axes.axvline(edge - 0.5, color=LINES, linewidth=0.6)
    names = [str(name) for name in classes[: len(counts)]]
    axes.set_xticks(edges - counts / 2, names, rotation=90 if max(map(len, names)) > 3 else 0, fontsize=8)
    axes.set_yticks(edges - counts / 2, names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_title("Tangent kernel, examples by class", fontsize=11)
    bar = figure.colorbar(image, ax=axes, extend="both", shrink=0.85)
    bar.set_label(r"$\Theta_{ij} / \sqrt{\Theta_{ii} \Theta_{jj}}$")
    figure.savefig(path, dpi=140)
