"""Gradient flow on any loss, with or without momentum, by an ODE solver in the space of outputs.

Without momentum, in time `tau = eta t`,

    df/dtau = -K grad L(f),     df_test/dtau = -K_test grad L(f).

Gradient descent with momentum m, `v <- m v + grad`, `w <- w - eta v`, becomes for small steps, in time
`tau = sqrt(eta) t` (Lee et al. 2019, section 2.4 and appendix; Qian 1999),

    df/dtau = q,     dq/dtau = -(1 - m) / sqrt(eta) q - K grad L(f),

and the same with K_test for test points. Solved by Dormand and Prince's method of order 8 with steps of its own choice
(diffrax): the relative tolerance is 1e-8 in float64, 1e-5 in float32.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, RunError
from aijax.ntk.arguments import check_function, check_momentum, floating, nonnegative, rate, real_array
from aijax.ntk.predict.layout import (
    as_columns,
    broadcast_outputs,
    check_image,
    from_columns,
    make_layout,
    on_columns,
    train_matrix,
)
from aijax.ntk.predict.mse import unseen_side
from aijax.typing import Array, Shaped

_MAX_STEPS = 100_000


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["fx_train", "fx_test", "qx_train", "qx_test"], meta_fields=[]
)
@dataclass(frozen=True)
class ODEState:
    """Outputs on training and test points, and their velocities `q = df/dtau`, None where there are none."""

    fx_train: Array | None = None
    fx_test: Array | None = None
    qx_train: Array | None = None
    qx_test: Array | None = None


def gradient_descent(
    loss: Callable[[Array, Array], Array],
    k_train_train: Shaped[Array, "..."] | Callable[[Array], Array],
    y_train: Shaped[Array, "n ..."],
    learning_rate: float = 1.0,
    momentum: float | None = None,
    trace_axes: int | Sequence[int] = (-1,),
) -> Callable[..., Array | tuple[Array, Array] | ODEState]:
    """Returns a function that predicts outputs after training on any loss by gradient flow, with or without momentum.

    `predict_fn(t=None, fx_train_or_state_0=0.0, fx_test_0=None, k_test_train=None)`: t is a number or an array of any
    shape, in any order, whose axes come first in the results, and counts steps of size `learning_rate`. First outputs
    and what is returned for them are as in `gradient_descent_mse`; or start from an `ODEState`, in which case an
    `ODEState` comes back, from which training can go on.

    Args:
      loss: `loss(f, y_train)`, differentiable in f, a scalar.
      k_train_train: kernel of the training points, or its product with outputs, as in `gradient_descent_mse`.
      y_train: targets, in whatever form `loss` takes them; they have the shape of the outputs.
      learning_rate: eta.
      momentum: m, None for gradient flow without.
      trace_axes: axes of `y_train` that kernels lack, being the identity over them.

    Raises:
      ConfigError: shapes that do not agree, negative rates or times, a momentum below 0 or not below 1, a loss
        that is no function or gives no real number, a missing `k_test_train`, a t that is missing or infinite,
        velocities in a state without momentum.
      RunError: the solver needed more than 100000 steps (inside `jax.jit` the result is NaN instead).

    Source: Lee et al. 2019, arXiv:1902.06720, section 2.4.

    >>> loss = lambda f, y: 0.5 * jnp.sum((f - y) ** 2)
    >>> predict_fn = gradient_descent(loss, jnp.eye(1), jnp.ones((1, 1)))
    >>> round(predict_fn(1.0).item(), 4)  # 1 - exp(-1)
    0.6321
    """
    y_train = real_array("y_train", y_train)
    layout = make_layout(y_train, trace_axes)
    rate("learning_rate", learning_rate)
    if momentum is not None:
        check_momentum(momentum)
    check_function("loss", loss)
    targets = floating("y_train", y_train)
    if callable(k_train_train):
        dtype, apply_train = targets.dtype, on_columns(k_train_train, layout)
        check_image("k_train_train", k_train_train, layout, dtype)
    else:
        matrix = train_matrix("k_train_train", k_train_train, layout)
        dtype = jnp.result_type(targets, matrix)
        matrix = matrix.astype(dtype)
        apply_train = functools.partial(jnp.matmul, matrix, precision="highest")

    _check_loss(loss, layout.shape, dtype, y_train)

    def predict_fn(t=None, fx_train_or_state_0=0.0, fx_test_0=None, k_test_train=None):
        given = fx_train_or_state_0
        _check_times(t)
        if isinstance(given, ODEState):
            if fx_test_0 is not None:
                raise ConfigError("fx_test_0: expected None, since the ODEState holds the first test outputs")
            first = given
            _check_velocities(first, momentum)
        else:
            first = ODEState(given, fx_test_0)
        if first.fx_train is None and first.fx_test is None:
            raise ConfigError("fx_train_or_state_0, fx_test_0: both are None, so there is nothing to predict")
        apply_test, test_start = unseen_side(first.fx_test, k_test_train, layout, dtype)
        shapes = {"train": layout.shape, "test": None if test_start is None else test_start.shape}
        outputs = {
            "train": broadcast_outputs("fx_train_0", _or_zero(first.fx_train), layout.shape, dtype),
            "test": test_start,
        }
        state = {"f": _columns(outputs, layout)}
        if momentum is not None:
            speeds = {
                "train": broadcast_outputs("qx_train", _or_zero(first.qx_train), layout.shape, dtype),
                "test": None
                if test_start is None
                else broadcast_outputs("qx_test", _or_zero(first.qx_test), test_start.shape, dtype),
            }
            state["q"] = _columns(speeds, layout)

        def force(f):
            outputs = from_columns(f["train"], layout.shape, layout)
            slope = as_columns(jax.grad(loss)(outputs, y_train), layout).astype(dtype)
            return {"train": -apply_train(slope), "test": None if apply_test is None else -apply_test(slope)}

        times = jnp.asarray(t, dtype) * (learning_rate if momentum is None else jnp.sqrt(learning_rate))
        friction = None if momentum is None else (1 - momentum) / jnp.sqrt(jnp.asarray(learning_rate, dtype))
        path = _solve(force, state, times.reshape(-1), friction)
        path = jax.tree.map(lambda x: x.reshape(*times.shape, *x.shape[1:]), path)

        def outputs_of(part, side):
            columns = path.get(part, {}).get(side)
            return None if columns is None else from_columns(columns, shapes[side], layout)

        result = ODEState(*(outputs_of(part, side) for part in ("f", "q") for side in ("train", "test")))
        if isinstance(given, ODEState):
            return result
        if given is None:
            return result.fx_test
        return result.fx_train if fx_test_0 is None else (result.fx_train, result.fx_test)

    return predict_fn


def _check_loss(loss, shape, dtype, y_train):
    try:
        value = jax.eval_shape(loss, jax.ShapeDtypeStruct(shape, dtype), y_train)
    except Exception as error:
        told = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(f"loss: not a function of outputs and targets ({type(error).__name__}: {told})") from error
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ConfigError(f"loss: expected one real floating-point number, got {value}")


def _check_times(t):
    if t is None:
        raise ConfigError("t: expected a time or an array of times; under a general loss training has no last one")
    nonnegative("t", t)
    if jnp.size(t) == 0:
        raise ConfigError("t: expected one time or more, got none")
    if not isinstance(t, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(t))):
        raise ConfigError(f"t: expected finite times, since under a general loss training has no last one, got {t}")


def _check_velocities(state, momentum):
    if momentum is None and not (state.qx_train is None and state.qx_test is None):
        raise ConfigError("qx_train, qx_test: expected None in a state without momentum")
    if state.fx_test is None and state.qx_test is not None:
        raise ConfigError("qx_test: expected None in a state without fx_test")


def _solve(force, state, times, friction):
    """Returns the states at times `[T]`, in any order, from the state at 0."""
    import diffrax

    dtype = times.dtype
    relative, absolute = (1e-8, 1e-10) if dtype == jnp.float64 else (1e-5, 1e-7)

    def field(_, state, __):
        push = force(state["f"])
        if friction is None:
            return {"f": push}
        return {"f": state["q"], "q": jax.tree.map(lambda q, a: a - friction * q, state["q"], push)}

    order = jnp.argsort(times)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8(),
        t0=jnp.zeros((), dtype),
        t1=times[order[-1]],
        dt0=None,
        y0=state,
        saveat=diffrax.SaveAt(ts=times[order]),
        stepsize_controller=diffrax.PIDController(rtol=relative, atol=absolute),
        max_steps=_MAX_STEPS,
        throw=False,
    )
    done = solution.result == diffrax.RESULTS.successful
    if not isinstance(done, jax.core.Tracer) and not done:
        raise RunError(
            f"predict: the ODE solver gave up within {_MAX_STEPS} steps; the last time is too long for this learning "
            f"rate and kernel"
        )
    return jax.tree.map(lambda x: jnp.where(done, x[jnp.argsort(order)], jnp.nan), solution.ys)


def _columns(outputs, layout):
    return {side: None if value is None else as_columns(value, layout) for side, value in outputs.items()}


def _or_zero(value):
    return 0.0 if value is None else value
