"""Gradient flow on the mean squared error in closed form, and the largest learning rate of discrete steps.

With `L = |f - y|^2 / (2 N)`, N = y.size, the flow `df/dt = -eta K (f - y) / N` gives, with `s = eta t / N`,

    train:  f(s) = y + exp(-s K) (f_0 - y)
    test:   f(s) = f_0 - K_test F(s) (f_0 - y),     F(s) = (I - exp(-s K)) / K

(Lee et al. 2019, equations 10 and 11). Where K has an eigenvalue 0, F has s there: nothing is divided by 0. At infinite
time the directions that K does not see stay as they began: f goes to y plus the projection of `f_0 - y` on the null
space, and F to the pseudo-inverse. That is the limit of the flow whenever the joint kernel of training and test points
is positive semi-definite, since K_test is then 0 on that null space. "The null space" is what rounding leaves
unresolved, see `aijax.ntk.predict.spectral`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.ntk.arguments import check_momentum, floating, nonnegative, rate, real_array, whole
from aijax.ntk.predict.layout import (
    Layout,
    as_columns,
    as_matrix,
    at_all_times,
    broadcast_outputs,
    check_diagonal,
    check_image,
    cross_matrix,
    from_columns,
    make_layout,
    on_columns,
)
from aijax.ntk.predict.solver import make_solver
from aijax.typing import Array, Float, Shaped

Outputs = Array | tuple[Array, Array]


def gradient_descent_mse(
    k_train_train: Shaped[Array, "..."] | Callable[[Array], Array],
    y_train: Shaped[Array, "n ..."],
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: int | Sequence[int] = (-1,),
    *,
    tolerance: float | None = None,
    max_iterations: int | None = None,
) -> Callable[..., Outputs]:
    """Returns a function that predicts outputs after training by gradient flow on `|f - y|^2 / (2 y.size)`.

    `predict_fn(t=None, fx_train_0=0.0, fx_test_0=None, k_test_train=None)` gives

        y + exp(-eta t K / N) (f_0 - y)   on the training points,
        f_0 - K_test K^-1 (I - exp(-eta t K / N)) (f_0 - y)   on test points,

    the first alone if `fx_test_0` is None, the second alone if `fx_train_0` is None (which then counts as 0), else
    both. t is a number or an array of any shape, whose axes come first in the results, and counts steps of size
    `learning_rate`; None and infinity are the end of training. First outputs are arrays or one number for all.
    `k_test_train` is the kernel of test points (rows) and training points.

    For many points, kernels may be products in place of arrays: `k_train_train(v)` takes and gives outputs in the shape
    of `y_train`, `k_test_train(v)` gives outputs on the test points. No matrix is then formed: t=None solves by
    conjugate gradients, other t apply the functions of K by Lanczos processes.

    Args:
      k_train_train: kernel of the training points, `zip(y_train.shape, y_train.shape)` without the trace axes, or a
        product.
      y_train: targets.
      learning_rate: eta, not negative.
      diag_reg: added to the diagonal of `k_train_train`.
      diag_reg_absolute_scale: False (default) counts `diag_reg` in units of the mean of the diagonal.
      trace_axes: axes of `y_train` that kernels lack, being the identity over them.
      tolerance: for products: relative error that counts as converged; default the root of the dtype's rounding.
      max_iterations: for products: of conjugate gradients (default ten times the unknowns), and the steps and vectors
        of a Lanczos process (default 100).

    Raises:
      ConfigError: shapes that do not agree, negative rates or times, test outputs without `k_test_train`.
      RunError: a product's iteration did not converge (inside `jax.jit` the result is NaN instead).

    Source: Jacot et al. 2018; Lee et al. 2019, arXiv:1902.06720, section 2.2.

    >>> predict_fn = gradient_descent_mse(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.ones((2, 1)))
    >>> predict_fn(None)[:, 0].tolist()  # the second point is out of the kernel's reach
    [1.0, 0.0]
    """
    y_train = floating("y_train", y_train)
    layout = make_layout(y_train, trace_axes)
    rate("learning_rate", learning_rate)
    if not callable(k_train_train):
        k_train_train = real_array("k_train_train", k_train_train)
    dtype = y_train.dtype if callable(k_train_train) else jnp.result_type(y_train, k_train_train)
    solver = make_solver(
        "k_train_train", k_train_train, layout, dtype, diag_reg, diag_reg_absolute_scale, tolerance, max_iterations
    )

    def predict_fn(t=None, fx_train_0=0.0, fx_test_0=None, k_test_train=None) -> Outputs:
        if fx_train_0 is None and fx_test_0 is None:
            raise ConfigError("fx_train_0, fx_test_0: both are None, so there is nothing to predict")
        start = broadcast_outputs("fx_train_0", 0.0 if fx_train_0 is None else fx_train_0, layout.shape, dtype)
        residual = as_columns(start - y_train, layout)
        apply_test, test_start = unseen_side(fx_test_0, k_test_train, layout, dtype)
        left, solved = evolve(solver, residual, t, learning_rate, y_train.size)
        results = ()
        if fx_train_0 is not None:
            change = from_columns(left, layout.shape, layout)
            results += (at_all_times(y_train, change) + change,)
        if fx_test_0 is not None:
            change = from_columns(apply_test(solved), test_start.shape, layout)
            results += (at_all_times(test_start, change) - change,)
        return results if len(results) > 1 else results[0]

    return predict_fn


def max_learning_rate(
    ntk_train_train: Shaped[Array, "..."],
    y_train_size: int | None = None,
    momentum: float = 0.0,
    eps: float = 1e-12,
) -> Float[Array, ""]:
    """Returns the learning rate up to which gradient descent on `|f - y|^2 / (2 y.size)` converges.

        2 (1 + momentum) y_train_size / (lambda_max(K) + eps)

    Args:
      ntk_train_train: NTK of the training points.
      y_train_size: number of targets, all axes counted; default what the kernel's shape says if it has no trace axes.
      momentum: of heavy-ball momentum.
      eps: added to the eigenvalue.

    Raises:
      ConfigError: a kernel that is not square, no targets, a negative `eps`, a momentum below 0 or not below 1.

    Source: Goh 2017, Why Momentum Really Works, section "The Dynamics of Momentum".

    >>> max_learning_rate(jnp.diag(jnp.array([1.0, 4.0]))).item()
    1.0
    """
    kernel = real_array("ntk_train_train", ntk_train_train)
    if kernel.ndim < 2 or kernel.ndim % 2 or kernel.shape[0::2] != kernel.shape[1::2]:
        raise ConfigError(f"ntk_train_train: expected two equal copies of each axis, got the shape {kernel.shape}")
    check_momentum(momentum)
    rate("eps", eps)
    matrix = as_matrix(kernel)
    check_diagonal("ntk_train_train", matrix)
    size = len(matrix)
    if y_train_size is not None:
        size = whole("y_train_size", y_train_size, 1, "a positive number of targets")
    return 2 * (1 + momentum) * size / (jnp.linalg.eigvalsh(matrix)[-1] + eps)


def evolve(solver, columns: Array, t, learning_rate, size: int) -> tuple[Array, Array]:
    """Returns `(E R, F R)` of columns R `[p, c]` at t: for None `[p, c]` at infinite time, else `[*t.shape, p, c]`."""
    if t is None:
        return solver.limit(columns)
    nonnegative("t", t)
    times = jnp.asarray(t, columns.dtype)
    ended = jnp.isinf(times)
    # an infinite time has no derivative, not a NaN
    flow = jnp.where(ended, jnp.inf, learning_rate * jnp.where(ended, 0, times) / size).astype(columns.dtype)
    left, solved = solver.flow(columns, flow.reshape(-1))
    return left.reshape(*times.shape, *columns.shape), solved.reshape(*times.shape, *columns.shape)


def unseen_side(fx_test_0, k_test_train, layout: Layout, dtype) -> tuple[Callable[[Array], Array] | None, Array | None]:
    """Returns the product of the test-train kernel with columns `[..., p, c]`, and first outputs in full."""
    if fx_test_0 is None:
        return None, None
    if k_test_train is None:
        raise ConfigError("k_test_train: missing; predictions on test points (fx_test_0) need their kernel")
    if not callable(k_test_train):
        matrix, shape = cross_matrix("k_test_train", k_test_train, layout)
        start = broadcast_outputs("fx_test_0", fx_test_0, shape, dtype)
        return lambda columns: jnp.matmul(matrix.astype(dtype), columns, precision="highest"), start
    image = check_image("k_test_train", k_test_train, layout, dtype)
    product = on_columns(k_test_train, layout)

    def apply(columns):
        return product(columns) if columns.ndim == 2 else jax.vmap(apply)(columns)

    return apply, broadcast_outputs("fx_test_0", fx_test_0, image, dtype)
