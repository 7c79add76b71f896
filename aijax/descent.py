"""Any optax optimiser run to its end as one loop, with the same answer as `aijax.lbfgs`."""

import jax
import jax.numpy as jnp
import optax

from aijax.lbfgs import BAD_START, FAILED_STEP, MAX_STEPS, RUNNING, SMALL_GRADIENT, Minimum
from aijax.typing import Array, Callable, PRNGKey, PyTree


def descend(
    function: Callable[[PyTree, PRNGKey | None], Array],
    start: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    key: PRNGKey | None = None,
    lower: PyTree | None = None,
    upper: PyTree | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-5,
) -> Minimum:
    """Returns where the optimiser came to; one evaluation a step, the last point being the answer.

    Args:
      function: a scalar of a tree of floating arrays and a key.
      start: where to begin.
      optimizer: of optax.
      key: split by step, or None, which the function then gets.
      lower: lowest values, of the structure of start, or None; each step is clipped to them.
      upper: highest values, likewise.
      max_steps: at most.
      tolerance: of the largest entry of the gradient.

    >>> minimum = descend(lambda x, key: jnp.sum(x**2), jnp.ones(2), optimizer=optax.sgd(0.25))
    >>> bool(minimum.converged), int(minimum.steps)
    (True, 18)
    """
    start = jax.tree.map(jnp.asarray, start)

    def clip(x):
        x = x if lower is None else jax.tree.map(jnp.maximum, x, lower)
        return x if upper is None else jax.tree.map(jnp.minimum, x, upper)

    def evaluate(x, step):
        return jax.value_and_grad(function)(x, None if key is None else jax.random.fold_in(key, step))

    def turn(state):
        updates, memory = optimizer.update(state["gradient"], state["memory"], state["x"])
        x = clip(optax.apply_updates(state["x"], updates))
        step = state["steps"] + 1
        value, gradient = evaluate(x, step)
        good = _finite((value, gradient))
        status = jnp.where(step >= max_steps, MAX_STEPS, RUNNING)
        status = jnp.where(good & (_largest(gradient) <= tolerance), SMALL_GRADIENT, status)
        new = {
            "x": x,
            "value": value,
            "gradient": gradient,
            "memory": memory,
            "steps": step,
            "history": state["history"].at[step].set(value),
        }
        kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, {name: state[name] for name in new})
        return kept | {"status": jnp.where(good, status, FAILED_STEP), "evaluations": state["evaluations"] + 1}

    x = clip(start)
    value, gradient = evaluate(x, 0)
    status = jnp.where(_largest(gradient) <= tolerance, SMALL_GRADIENT, RUNNING)
    state = {
        "x": x,
        "value": value,
        "gradient": gradient,
        "memory": optimizer.init(x),
        "steps": jnp.array(0),
        "history": jnp.zeros(max_steps + 1, value.dtype).at[0].set(value),
        "status": jnp.where(_finite((value, gradient)), status, BAD_START),
        "evaluations": jnp.array(1),
    }
    end = jax.lax.while_loop(lambda state: state["status"] == RUNNING, turn, state)
    end.pop("memory")
    end["value"] = jnp.where(end["status"] == BAD_START, jnp.inf, end["value"])
    end["history"] = jnp.where(jnp.arange(max_steps + 1) > end["steps"], end["value"], end["history"])
    return Minimum(**end)


def _finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _largest(tree):
    return jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]).max()
