"""Gaussian process inference with kernels of infinitely wide networks.

With K the NNGP kernel and T the NTK, X the training and x the test points, y the targets:

    nngp:   mean K_xX K^-1 y,  covariance K_xx - K_xX K^-1 K_Xx          the Bayesian network (Lee et al. 2018)
    ntkgp:  the same with T in place of K                                (He et al. 2020, arXiv:2007.05864)
    ntk:    mean B y,  covariance K_xx - B K_Xx - K_xX B^T + B K B^T,  B = T_xX T^-1

The last is the ensemble of networks trained by gradient flow for infinite time (Lee et al. 2019, equations 14 and 15):
with prior covariance K and a map from the initial function to the final one that only T decides. Inverses are of
regularised kernels (the noise variance of a Gaussian process); of singular ones they are pseudo-inverses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.arguments import floating, real_array
from aijax.ntk.predict.gaussian import Gaussian, bundle, names_of
from aijax.ntk.predict.layout import (
    Layout,
    as_columns,
    at_all_times,
    cross_matrix,
    from_columns,
    from_matrix,
    make_layout,
    train_matrix,
)
from aijax.ntk.predict.mse import unseen_side
from aijax.ntk.predict.solver import check_regularisation, keep, make_solver
from aijax.typing import Array, Shaped

GETS = ("nngp", "ntk", "ntkgp")


def gp_inference(
    k_train_train: Any,
    y_train: Shaped[Array, "n ..."],
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: int | Sequence[int] = (-1,),
    *,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> Callable[..., Any]:
    """Returns a function that gives the posterior of a Gaussian process, or of a fully trained infinite ensemble.

    `predict_fn(get=None, k_test_train=None, k_test_test=None)`: `get` is "nngp", "ntk" or "ntkgp", or several (a named
    tuple with these fields is returned), None for ("nngp", "ntk"). The result is a mean in the shape of the outputs, or
    with `k_test_test` a `Gaussian(mean, covariance)`, the covariance in the shape of `k_test_test`. Without
    `k_test_train` it is the prediction on the training points, where training has brought the mean to the targets and
    the covariance to 0 (up to what a singular kernel does not reach); `k_test_test=True` asks for its covariance.

    A kernel is an array, which serves whatever is asked for, or anything with fields `nngp` and/or `ntk`. "ntk" with a
    covariance needs both, in `k_train_train` and `k_test_train`, and the test points' NNGP kernel. As in
    `gradient_descent_mse`, products may take the place of the arrays of `k_train_train` and, for means, of
    `k_test_train`; covariances of "nngp" and "ntkgp" are then solved for column by column.

    Args:
      k_train_train: kernel or kernels of the training points.
      y_train: targets.
      diag_reg, diag_reg_absolute_scale, trace_axes, tolerance, max_iterations: as in `gradient_descent_mse`.

    Raises:
      ConfigError: an unknown `get`, a kernel that is missing, shapes that do not agree.
      RunError: a product's iteration did not converge (inside `jax.jit` the result is NaN instead).

    Source: Rasmussen and Williams 2006, equations 2.25 and 2.26; Lee et al. 2019, equations 14 to 16.

    >>> predict_fn = gp_inference(jnp.eye(2), jnp.array([[1.0], [2.0]]), diag_reg=1.0)
    >>> predict_fn("nngp", jnp.array([[1.0, 0.0]])).round(4).item()
    0.5
    """
    y_train = floating("y_train", y_train)
    layout = make_layout(y_train, trace_axes)
    check_regularisation(diag_reg, diag_reg_absolute_scale)
    solvers = {}

    def solver_of(name):
        if name in solvers:
            return solvers[name]
        kernel = field("k_train_train", k_train_train, name)
        dtype = y_train.dtype if callable(kernel) else jnp.result_type(y_train, kernel)
        options = (diag_reg, diag_reg_absolute_scale, tolerance, max_iterations)
        return keep(solvers, name, make_solver("k_train_train", kernel, layout, dtype, *options))

    def predict_fn(get=None, k_test_train=None, k_test_test=None):
        values = {}
        with_covariance = k_test_test is not None and k_test_test is not False
        for name in names_of(get, GETS):
            kernel = "nngp" if name == "nngp" else "ntk"
            solver = solver_of(kernel)
            left, solved = solver.limit(as_columns(y_train, layout))
            if k_test_train is None:
                mean = y_train - from_columns(left, layout.shape, layout)
            else:
                test_train = field("k_test_train", k_test_train, kernel)
                apply, start = unseen_side(0.0, test_train, layout, left.dtype)
                mean = start + from_columns(apply(solved), start.shape, layout)
            if not with_covariance:
                values[name] = mean
                continue
            prior = "nngp" if name == "ntk" else kernel
            if k_test_train is None:
                covariance = _left_on_train(solver, k_train_train, prior, layout, mean.dtype)
            else:
                test_test = field("k_test_test", k_test_test, prior)
                covariance = _on_test(solver, name, k_train_train, k_test_train, test_test, layout, mean.dtype)
            values[name] = Gaussian(mean, covariance)
        return bundle(get, values)

    return predict_fn


def field(where: str, kernel: Any, name: str, both: bool = False) -> Any:
    """Returns the kernel `name`: an array or a product as it is, else the field of that name.

    Raises:
      ConfigError: it is missing, or `both` says that one array cannot stand for it.
    """
    if isinstance(kernel, bool) or kernel is None:
        raise ConfigError(f"{where}: expected a kernel, got {kernel!r}")
    if hasattr(kernel, "nngp") or hasattr(kernel, "ntk"):
        value = getattr(kernel, name, None)
        if value is None:
            raise ConfigError(f"{where}: the kernel {name!r} is needed for what `get` asks and is not in it")
        return value if callable(value) else real_array(where, value)
    if both:
        raise ConfigError(f"{where}: get='ntk' with a covariance needs both fields, nngp and ntk, got one array")
    return kernel if callable(kernel) else real_array(where, kernel)


def ensemble_covariance(test_test: Array, transfer: Array, train_test: Array, train_train: Array) -> Array:
    """Returns `K_xx - B K_Xx - K_xX B^T + B K B^T`, symmetric, for transfers B `[..., q, p]`."""
    cross = _matmul(transfer, train_test)
    moved = _matmul(_matmul(transfer, train_train), jnp.swapaxes(transfer, -1, -2))
    return symmetrise(at_all_times(test_test, cross) - cross - jnp.swapaxes(cross, -1, -2) + moved)


def symmetrise(matrix: Array) -> Array:
    """Returns the symmetric part of `[..., n, n]`."""
    return (matrix + jnp.swapaxes(matrix, -1, -2)) / 2


def square_matrix(name: str, kernel: Array, rows: tuple[int, ...], layout: Layout, dtype) -> Array:
    """Returns a test-test kernel as a matrix, after a look at its shape."""
    outputs = list(layout.shape)
    for axis, size in zip(layout.kept, rows, strict=True):
        outputs[axis] = size
    return train_matrix(name, kernel, Layout(tuple(outputs), layout.kept, layout.traced)).astype(dtype)


def _on_test(solver, name, k_train_train, k_test_train, test_test, layout, dtype):
    kernel = field("k_test_train", k_test_train, "nngp" if name == "nngp" else "ntk", both=name == "ntk")
    if callable(kernel):
        raise ConfigError("k_test_train: a covariance needs the kernel as an array; a product serves means only")
    matrix, _ = cross_matrix("k_test_train", kernel, layout)
    rows = kernel.shape[0::2]
    prior = square_matrix("k_test_test", test_test, rows, layout, dtype)
    _, solved = solver.limit(matrix.T.astype(dtype))
    if name != "ntk":
        return from_matrix(symmetrise(prior - _matmul(matrix, solved)), rows, rows)
    nngp, _ = cross_matrix("k_test_train", field("k_test_train", k_test_train, "nngp"), layout)
    train = train_matrix("k_train_train", field("k_train_train", k_train_train, "nngp", both=True), layout)
    return from_matrix(ensemble_covariance(prior, solved.T, nngp.T, train), rows, rows)


def _left_on_train(solver, k_train_train, prior, layout, dtype):
    """Returns P K P, with P the projector on what the trained kernel does not reach; 0 where it is regular.

    0 also where K is not given, or is a product: the trained kernel is then taken to be regular.
    """
    kernel = getattr(k_train_train, prior, None)
    if kernel is None or callable(kernel):
        return jnp.zeros(tuple(size for size in layout.kept_shape for _ in range(2)), dtype)
    once, _ = solver.limit(train_matrix("k_train_train", kernel, layout).astype(dtype))
    twice, _ = solver.limit(once.T)
    return from_matrix(symmetrise(twice), layout.kept_shape, layout.kept_shape)


def _matmul(a, b):
    return jnp.matmul(a, b, precision="highest")
