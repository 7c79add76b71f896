"""The infinite ensemble of infinitely wide networks trained on the mean squared error, as a Gaussian at each time.

The outputs at initialisation are a Gaussian process with the NNGP kernel K. Gradient flow is linear in them (see
`aijax.ntk.predict.mse`), so they stay Gaussian. With `s = eta t / N`, E and F the decay and its integral, and
`B = T_xX F(s)`, training all layers (T the NTK) gives

    test:   mean B y,              covariance K_xx - B K_Xx - K_xX B^T + B K B^T
    train:  mean y - E(s) y,       covariance E(s) K E(s)                 (Lee et al. 2019, equations 14 and 15)

and training the last layer only is the same with K in place of T, where the covariances become

    test:   K_xx - K_xX F(2 s) K_Xx,       train:  E(2 s) K.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.ntk.arguments import check_flag, check_function, floating, rate
from aijax.ntk.predict.gaussian import Gaussian, bundle, names_of
from aijax.ntk.predict.gp import ensemble_covariance, field, square_matrix, symmetrise
from aijax.ntk.predict.layout import (
    as_columns,
    at_all_times,
    cross_matrix,
    from_columns,
    from_matrix,
    make_layout,
    train_matrix,
)
from aijax.ntk.predict.mse import evolve
from aijax.ntk.predict.solver import check_regularisation, keep, make_solver
from aijax.typing import Array, PyTree, Shaped

GETS = ("nngp", "ntk")


def gradient_descent_mse_ensemble(
    kernel_fn: Callable[..., Any],
    x_train: PyTree[Array],
    y_train: Shaped[Array, "n ..."],
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: int | Sequence[int] = (-1,),
    **kernel_fn_train_train_kwargs: Any,
) -> Callable[..., Any]:
    """Returns a function that gives the outputs of an infinite ensemble at any time of its training.

    `predict_fn(t=None, x_test=None, get=None, compute_cov=False, **kernel_fn_test_test_kwargs)`: the mean in the shape
    of the outputs, or with `compute_cov` a `Gaussian(mean, covariance)`, the covariance in the shape of the kernels; at
    t as in `gradient_descent_mse`, on `x_test` or, if None, on the training points. `get` is "ntk" (all layers are
    trained), "nngp" (the last one is), or several: a named tuple with these fields; None for ("nngp", "ntk").

    Args:
      kernel_fn: `kernel_fn(x1, x2, get, **kwargs)`: an array for a name, something with those fields for several.
      x_train: training inputs.
      y_train: targets.
      learning_rate, diag_reg, diag_reg_absolute_scale, trace_axes: as in `gradient_descent_mse`. The regularisation is
        of the kernel that training uses; the prior's covariance is without, but for "nngp" on the training points.
      **kernel_fn_train_train_kwargs: for `kernel_fn` on the training points. On test points they hold where
        `kernel_fn_test_test_kwargs` has no word of that name. Between test and training points, two different tuples
        of one name become the pair of their first entries, the test points' first; nothing else may differ.

    Raises:
      ConfigError: an unknown `get`, shapes that do not agree, keyword arguments that differ.

    Source: Lee et al. 2019, arXiv:1902.06720, section 2.3.

    >>> kernel_fn = lambda x1, x2, get: x1 @ (x1 if x2 is None else x2).T
    >>> predict_fn = gradient_descent_mse_ensemble(kernel_fn, jnp.eye(2), jnp.ones((2, 1)))
    >>> predict_fn(None, jnp.ones((1, 2)), "ntk").round(4).item()
    2.0
    """
    check_function("kernel_fn", kernel_fn)
    y_train = floating("y_train", y_train)
    layout = make_layout(y_train, trace_axes)
    rate("learning_rate", learning_rate)
    check_regularisation(diag_reg, diag_reg_absolute_scale)
    kernels, solvers = {}, {}

    def train_kernel(name):
        if name in kernels:
            return kernels[name]
        kernel = _kernels(kernel_fn, x_train, None, (name,), kernel_fn_train_train_kwargs)[name]
        return keep(kernels, name, kernel)

    def solver_of(name):
        if name in solvers:
            return solvers[name]
        kernel = train_kernel(name)
        dtype = jnp.result_type(y_train, kernel)
        return keep(solvers, name, make_solver("kernel_fn", kernel, layout, dtype, diag_reg, diag_reg_absolute_scale))

    def predict_fn(t=None, x_test=None, get=None, compute_cov=False, **kernel_fn_test_test_kwargs):
        names = names_of(get, GETS)
        check_flag("compute_cov", compute_cov)
        at = functools.partial(evolve, t=t, learning_rate=learning_rate, size=y_train.size)
        needed = tuple(name for name in GETS if name in names or (compute_cov and name == "nngp"))
        if x_test is not None:
            keywords = _between(kernel_fn_train_train_kwargs, kernel_fn_test_test_kwargs)
            test_train = _kernels(kernel_fn, x_test, x_train, needed, keywords)
            if compute_cov:
                keywords = {**kernel_fn_train_train_kwargs, **kernel_fn_test_test_kwargs}
                test_test = _kernels(kernel_fn, x_test, None, ("nngp",), keywords)["nngp"]
        values = {}
        for name in names:
            solver = solver_of(name)
            nngp = train_matrix("kernel_fn", train_kernel("nngp"), layout) if compute_cov else None
            left, solved = at(solver, as_columns(y_train, layout).astype(solver.matrix.dtype))
            if x_test is None:
                left = from_columns(left, layout.shape, layout)
                mean = at_all_times(y_train, left) - left
                covariance = _on_train(at, solver, name, nngp, t, layout) if compute_cov else None
            else:
                matrix, shape = cross_matrix("kernel_fn", test_train[name], layout)
                mean = from_columns(jnp.matmul(matrix, solved, precision="highest"), shape, layout)
                covariance = _on_test(at, solver, name, test_train, test_test, nngp, t, layout) if compute_cov else None
            values[name] = Gaussian(mean, covariance) if compute_cov else mean
        return bundle(get, values)

    return predict_fn


def infinite_width_prediction(
    x_train: PyTree[Array],
    y_train: Shaped[Array, "n ..."],
    x_test: PyTree[Array],
    kernel_fn: Callable[..., Any],
    *,
    get: str = "ntk",
    compute_cov: bool = False,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: int | Sequence[int] = (-1,),
    **kernel_fn_kwargs: Any,
) -> Array | Gaussian:
    """Returns what the infinitely wide network predicts on test points when its training has ended.

        mean T_xX (T + reg)^-1 y,     T the NTK ("ntk"), or the NNGP kernel ("nngp": the Bayesian network)

    Args:
      x_train, y_train: training inputs and targets.
      x_test: test inputs.
      kernel_fn: `kernel_fn(x1, x2, get)`.
      get: "ntk" or "nngp".
      compute_cov: True returns a `Gaussian(mean, covariance)` over initialisations ("ntk") or posterior ("nngp").
      diag_reg, diag_reg_absolute_scale, trace_axes: as in `gradient_descent_mse`.
      **kernel_fn_kwargs: for `kernel_fn`.

    Raises:
      ConfigError: an unknown `get`, shapes that do not agree.

    Source: Jacot et al. 2018; Lee et al. 2019, equations 13 to 16.

    >>> kernel_fn = lambda x1, x2, get: x1 @ (x1 if x2 is None else x2).T
    >>> infinite_width_prediction(jnp.eye(2), jnp.ones((2, 1)), jnp.ones((1, 2)), kernel_fn).item()
    2.0
    """
    predict_fn = gradient_descent_mse_ensemble(
        kernel_fn, x_train, y_train, 1.0, diag_reg, diag_reg_absolute_scale, trace_axes, **kernel_fn_kwargs
    )
    return predict_fn(None, x_test, get, compute_cov)


def _on_train(at, solver, name, nngp, t, layout):
    if name == "nngp":
        covariance, _ = at(solver, solver.matrix, t=None if t is None else 2 * jnp.asarray(t))
    else:
        decay, _ = at(solver, jnp.eye(len(nngp), dtype=solver.matrix.dtype))
        covariance = jnp.matmul(jnp.matmul(decay, nngp, precision="highest"), decay, precision="highest")
    return from_matrix(symmetrise(covariance), layout.kept_shape, layout.kept_shape)


def _on_test(at, solver, name, test_train, test_test, nngp, t, layout):
    prior_cross, _ = cross_matrix("kernel_fn", test_train["nngp"], layout)
    rows = test_train["nngp"].shape[0::2]
    prior = square_matrix("kernel_fn", test_test, rows, layout, solver.matrix.dtype)
    if name == "nngp":
        _, solved = at(solver, prior_cross.T, t=None if t is None else 2 * jnp.asarray(t))
        explained = jnp.matmul(prior_cross, solved, precision="highest")
        covariance = symmetrise(at_all_times(prior, explained) - explained)
    else:
        cross, _ = cross_matrix("kernel_fn", test_train["ntk"], layout)
        _, solved = at(solver, cross.T)
        covariance = ensemble_covariance(prior, jnp.swapaxes(solved, -1, -2), prior_cross.T, nngp)
    return from_matrix(covariance, rows, rows)


def _kernels(kernel_fn, x1, x2, names, keywords):
    """Returns `{name: kernel}`, asking for several at once where several are needed."""
    kernels = kernel_fn(x1, x2, names[0] if len(names) == 1 else names, **keywords)
    return {name: field("kernel_fn", kernels, name, both=len(names) > 1) for name in names}


def _between(train, test):
    """Returns the keyword arguments of the kernel between test (first) and training points (second)."""
    merged = {**train, **test}
    for name in train.keys() & test.keys():
        ours, theirs = train[name], test[name]
        if ours is theirs:
            continue
        if isinstance(ours, tuple) and isinstance(theirs, tuple):
            merged[name] = (theirs[0], ours[0])
        elif not _same(ours, theirs):
            raise ConfigError(f"{name}: expected one value for training and test points, or a tuple for each")
    return merged


def _same(first, second):
    if jax.tree.structure(first) != jax.tree.structure(second):
        return False
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(a is b or (not _traced(a) and not _traced(b) and np.array_equal(a, b)) for a, b in pairs)


def _traced(value):
    return isinstance(value, jax.core.Tracer)
