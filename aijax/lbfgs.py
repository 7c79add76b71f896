"""L-BFGS in a box: a minimum of a smooth function, each turn of the loop one evaluation.

The direction is `-H g` with H the limited-memory BFGS inverse Hessian of the last m steps (Liu and Nocedal 1989,
algorithm 2.1; the first H is `(s.y / y.y) I`). In a box, coordinates at an edge that the gradient pushes against rest,
the others move within their own H and are clipped to the box along the way (projected quasi-Newton; Bertsekas 1982).
A step is sought by bracketing the weak Wolfe conditions (Lewis and Overton 2013, algorithm 2.6)

    f(x + t d) <= f(x) + c1 t g.d,      g(x + t d).d >= c2 g.d

with cubic interpolation in place of bisection where both ends are finite. Near the minimum, where differences of f
are rounding, the first condition is read from slopes (Hager and Zhang 2005, equation 4.1). An evaluation that is not
finite counts as infinitely high: the search comes back from it.

The search is not a loop in the loop. Under `vmap` a loop turns until its last lane is done, so that nested loops
cost, at every step, the longest search of all lanes; here each lane is at its own place of its own search, and the
whole costs the evaluations of the slowest lane.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from aijax.errors import ConfigError
from aijax.typing import Any, Array, Callable, PyTree

RUNNING, SMALL_GRADIENT, SAME_VALUE, MAX_STEPS, NO_DESCENT, BAD_START, OVERTAKEN, FAILED_STEP = range(8)

REASONS = (
    "still running",
    "the gradient is below the tolerance",
    "the value no longer changes",
    "max_steps were made",
    "no lower value was found along the direction of descent",
    "the value or the gradient at the start is not finite",
    "other starts were better after the first steps",
    "a step led to where the value or the gradient is not finite",
)
"""Why an optimiser stopped, by its status."""

SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.9
MAX_SEARCH = 20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended, and why. Of several starts, each field has their axis first.

    Args:
      x: the best point, as the start was given.
      value: the function there.
      gradient: its gradient there.
      status: an index of `REASONS`.
      steps: accepted steps.
      evaluations: of value and gradient.
      history: values at the start and after each step, `[max_steps + 1]`; after the last step they repeat.
    """

    x: PyTree
    value: Array
    gradient: PyTree
    status: Array
    steps: Array
    evaluations: Array
    history: Array

    @property
    def converged(self) -> Array:
        """Whether it stopped at what is a minimum to the tolerance or to rounding."""
        return (self.status == SMALL_GRADIENT) | (self.status == SAME_VALUE)


def lbfgs(function: Callable[[PyTree], Array], start: PyTree, **options: Any) -> Minimum:
    """Returns a local minimum of `function` near `start`.

    Args:
      function: a scalar of a tree of floating arrays; not finite where it cannot be evaluated.
      start: where to begin; clipped to the box.
      options: as `lbfgs_race` has them from `lower` on.

    Raises:
      ConfigError: a start without floating entries.

    >>> minimum = lbfgs(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(2), upper=jnp.array([1.0, 9.0]))
    >>> minimum.x.tolist(), REASONS[int(minimum.status)]
    ([1.0, 3.0], 'the gradient is below the tolerance')
    """
    return jax.tree.map(lambda leaf: leaf[0], lbfgs_race(function, jax.tree.map(lambda x: x[None], start), **options))


def lbfgs_race(
    function: Callable[[PyTree], Array],
    starts: PyTree,
    *,
    together: bool = True,
    explore_steps: int | None = None,
    finalists: int = 1,
    lower: PyTree | None = None,
    upper: PyTree | None = None,
    memory: int = 10,
    max_steps: int = 200,
    tolerance: float = 1e-5,
    value_tolerance: float | None = None,
    first_step: float = 1.0,
) -> Minimum:
    """Returns the minima from several starts; not all need be followed to the end.

    Args:
      function: a scalar of a tree of floating arrays; not finite where it cannot be evaluated.
      starts: trees like the argument of function with a first axis of starts; clipped to the box.
      together: advance all starts together, by `vmap`; else one at a time. Together costs the number of starts times
        the evaluations of the slowest, one at a time what each of them makes: less, where one fills the device.
      explore_steps: steps after which only the best starts go on; default: all go on.
      finalists: how many go on then.
      lower: lowest values, of the structure of one start, or None for none.
      upper: highest values, likewise.
      memory: steps that the inverse Hessian remembers.
      max_steps: accepted steps of a start at most.
      tolerance: of the largest entry of the gradient, edges of the box left out.
      value_tolerance: of the relative change of the value in a step; default 10 roundings.
      first_step: length of the first step that is tried, in units of x.

    Raises:
      ConfigError: starts without floating entries.
    """
    first = jax.tree.map(lambda leaf: leaf[0], starts)
    flat, unravel = ravel_pytree(first)
    if not flat.size or not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ConfigError(f"start: expected a tree of floating arrays, got {flat.size} entries of {flat.dtype}")
    box = None
    if lower is not None or upper is not None:
        edges = [(lower, -jnp.inf), (upper, jnp.inf)]
        box = [jnp.full_like(flat, e) if b is None else ravel_pytree(b)[0].astype(flat.dtype) for b, e in edges]
    if value_tolerance is None:
        value_tolerance = 10 * float(jnp.finfo(flat.dtype).eps)
    search = _Search(lambda x: function(unravel(x)), box, max_steps, tolerance, value_tolerance, first_step)
    begin = jax.vmap(lambda start: _begin(ravel_pytree(start)[0], box, memory, max_steps))(starts)

    def going(state):
        status, steps = state["counts"][:, 0], state["counts"][:, 1]
        running = status == RUNNING
        if explore_steps is None:
            return running
        exploring = running & (steps < explore_steps)
        value = state["scalars"][:, 0]
        ahead = jnp.sum(value < value[:, None], 1) < finalists
        return jnp.where(exploring.any(), exploring, running & ahead)

    def turn(carry):
        state, lanes = carry
        if together:
            state = _where_lanes(lanes, jax.vmap(search.turn)(state), state)
        else:
            chosen = jnp.argmax(lanes)
            one = search.turn(jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, chosen, 0, False), state))
            state = jax.tree.map(
                lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, chosen, 0), state, one
            )
        return state, going(state)

    lanes = jnp.ones(len(begin["counts"]), bool)
    end, _ = jax.lax.while_loop(lambda carry: carry[1].any(), turn, (begin, lanes))
    end = jax.vmap(_unpack)(end)
    status = jnp.where(end["status"] == RUNNING, OVERTAKEN, end["status"])
    after = jnp.arange(max_steps + 1) > end["steps"][:, None]
    return Minimum(
        x=jax.vmap(unravel)(end["x"]),
        value=end["value"],
        gradient=jax.vmap(unravel)(end["gradient"]),
        status=status,
        steps=end["steps"],
        evaluations=end["evaluations"],
        history=jnp.where(after, end["value"][:, None], end["history"]),
    )


def _begin(x, box, memory, max_steps):
    """Returns the state of a start that is not evaluated yet: its first turn does that."""
    x = x if box is None else jnp.clip(x, *box)
    zero = jnp.zeros((), x.dtype)
    return _pack(
        x=x,
        value=zero + jnp.inf,
        gradient=jnp.zeros_like(x),
        memory=jnp.zeros((2, memory, x.size), x.dtype),  # moves, and changes of the gradient
        direction=jnp.zeros_like(x),
        search=_search_along(zero),
        status=RUNNING,
        steps=-1,
        evaluations=0,
        tries=0,
        history=jnp.zeros(max_steps + 1, x.dtype),
    )


def _search_along(slope):
    """Returns a search that has not begun: `[slope, t, low, high]`, of each end (t, value less that at x, slope)."""
    zero = jnp.zeros_like(slope)
    return jnp.stack([slope, zero + 1, zero, zero, slope, zero + jnp.inf, zero, zero])


def _pack(x, value, gradient, memory, direction, search, status, steps, evaluations, tries, history):
    """Returns the state as few arrays: a loop that carries many takes longer to compile and to run."""
    vectors = jnp.concatenate([jnp.stack([x, direction, gradient]), memory.reshape(-1, x.size)])
    scalars = jnp.concatenate([value[None], search])
    counts = jnp.stack([jnp.asarray(count, int) for count in (status, steps, evaluations, tries)])
    return {"vectors": vectors, "scalars": scalars, "counts": counts, "history": history}


def _unpack(state):
    x, direction, gradient = state["vectors"][:3]
    status, steps, evaluations, tries = state["counts"]
    return {
        "x": x,
        "value": state["scalars"][0],
        "gradient": gradient,
        "memory": state["vectors"][3:].reshape(2, -1, x.size),
        "direction": direction,
        "search": state["scalars"][1:],
        "status": status,
        "steps": steps,
        "evaluations": evaluations,
        "tries": tries,
        "history": state["history"],
    }


@dataclasses.dataclass(frozen=True)
class _Search:
    function: Callable[[Array], Array]
    box: list[Array] | None
    max_steps: int
    tolerance: float
    value_tolerance: float
    first_step: float

    def turn(self, packed):
        """Returns the state after one evaluation: nearer to the end of its search, or at the beginning of the next."""
        state = _unpack(packed)
        x, value, gradient, search = state["x"], state["value"], state["gradient"], state["search"]
        first_slope, t, low, high = search[0], search[1], search[2:5], search[5:]
        eps = jnp.finfo(x.dtype).eps
        begun = state["evaluations"] > 0
        new_x, inside = x + t * state["direction"], True
        if self.box is not None:
            inside = (new_x > self.box[0]) & (new_x < self.box[1])
            new_x = jnp.clip(new_x, *self.box)
        new_value, new_gradient = self.evaluate(new_x)
        rise, move, tries = new_value - value, new_x - x, state["tries"] + 1
        slope = jnp.sum(jnp.where(inside, new_gradient * state["direction"], 0))

        descends = rise <= SUFFICIENT_DECREASE * (gradient @ move)
        level = jnp.abs(rise) <= 10 * eps * jnp.abs(value)
        descends |= level & (slope <= (2 * SUFFICIENT_DECREASE - 1) * first_slope)
        descends &= jnp.isfinite(new_value)
        accepted = descends & ((slope >= CURVATURE * first_slope) | (tries >= MAX_SEARCH) | ~begun)
        here = jnp.stack([t, rise, slope])
        low, high = jnp.where(descends, here, low), jnp.where(descends, high, here)
        t = _next(low, high, tries)
        length = t * jnp.max(jnp.abs(state["direction"]))
        too_short = (length <= eps * jnp.maximum(jnp.max(jnp.abs(x)), 1e-3)) & (low[0] == 0)
        failed = ~accepted & ((tries > MAX_SEARCH) | too_short)

        change = new_gradient - gradient
        keep = accepted & begun & (move @ change > eps * (change @ change))
        pair = jnp.stack([move, change])
        memory = jnp.where(keep, jnp.concatenate([state["memory"][:, 1:], pair[:, None]], 1), state["memory"])
        fresh = ~(memory[0] != 0).any()  # nothing remembered: the direction that failed was the steepest one
        memory = jnp.where(failed, 0, memory)
        steps = state["steps"] + accepted
        x, value, gradient = _where(accepted, (new_x, new_value, new_gradient), (x, value, gradient))
        same = begun & (jnp.abs(rise) <= self.value_tolerance * jnp.maximum(jnp.abs(value), 1))
        status = state["status"]
        for reached, reason in (
            (failed & fresh, NO_DESCENT),
            (accepted & (steps >= self.max_steps), MAX_STEPS),
            (accepted & same, SAME_VALUE),
            (accepted & (self.steepness(x, gradient) <= self.tolerance), SMALL_GRADIENT),
            (~begun & ~accepted, BAD_START),
        ):
            status = jnp.where(reached, reason, status)
        direction, new_slope = self.direction(x, gradient, *memory)
        search = jnp.concatenate([jnp.stack([first_slope, t]), low, high])
        anew = accepted | failed
        return _pack(
            x=x,
            value=value,
            gradient=gradient,
            memory=memory,
            direction=jnp.where(anew, direction, state["direction"]),
            search=jnp.where(anew, _search_along(new_slope), search),
            status=status,
            steps=steps,
            evaluations=state["evaluations"] + 1,
            tries=jnp.where(anew, 0, tries),
            history=jax.lax.dynamic_update_index_in_dim(state["history"], value, steps, 0),
        )

    def evaluate(self, x):
        value, gradient = jax.value_and_grad(self.function)(x)
        good = jnp.isfinite(value) & jnp.isfinite(gradient).all()
        return jnp.where(good, value, jnp.inf).astype(x.dtype), jnp.where(good, gradient, 0)

    def steepness(self, x, gradient):
        """Returns the largest entry of the gradient, or of the step that the box leaves of it."""
        return jnp.max(jnp.abs(gradient if self.box is None else x - jnp.clip(x - gradient, *self.box)))

    def direction(self, x, gradient, moves, changes):
        """Returns `-H g` and its slope, by two loops (Nocedal 1980); pairs without curvature drop out."""
        steep = gradient
        if self.box is not None:
            low, high = self.box
            free = ~(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0)))
            steep, moves, changes = gradient * free, moves * free, changes * free
        curvature, square = jnp.sum(moves * changes, 1), jnp.sum(changes**2, 1)
        known = curvature > jnp.finfo(x.dtype).eps * square  # in a box a masked pair may lose its curvature
        weights = jnp.where(known, 1 / jnp.where(known, curvature, 1), 0)

        def backward(q, pair):
            move, change, weight = pair
            along = weight * jnp.sum(move * q)
            return q - along * change, along

        def forward(step, pair):
            move, change, weight, along = pair
            return step + (along - weight * jnp.sum(change * step)) * move, None

        q, along = jax.lax.scan(backward, steep, (moves, changes, weights), reverse=True)
        newest = jnp.argmax(jnp.where(known, jnp.arange(len(moves)), -1))
        length = jnp.sqrt(jnp.sum(steep**2))
        first = self.first_step / jnp.where(length > 0, length, 1)
        scale = jnp.where(known[newest], curvature[newest] / jnp.where(known[newest], square[newest], 1), first)
        step, _ = jax.lax.scan(forward, scale * q, (moves, changes, weights, along))
        slope = jnp.sum(gradient * step)
        downhill = (slope > 0) & jnp.isfinite(step).all()
        return -jnp.where(downhill, step, first * steep), -jnp.where(downhill, slope, first * length**2)


def _next(low, high, tries):
    """Returns the next t of a search: beyond `low` while nothing bounds it, else between the two."""
    (a, fa, ga), (b, fb, gb) = low, high
    width = b - a
    # the minimiser of the cubic through both values and slopes (Nocedal and Wright 2006, equation 3.59)
    bounded = jnp.isfinite(b)
    safe = jnp.where(bounded, width, 1)
    p = ga + gb - 3 * (fa - fb) / -safe
    root = jnp.sqrt(jnp.maximum(p**2 - ga * gb, 0))
    cubic = b - safe * (gb + root - p) / (gb - ga + 2 * root)
    usable = bounded & jnp.isfinite(fb) & jnp.isfinite(cubic)
    inner = jnp.where(usable, jnp.clip(cubic, a + 0.1 * safe, a + 0.9 * safe), a + 0.3 * safe)
    inner = jnp.where((tries >= MAX_SEARCH - 1) & (a > 0), a, inner)
    return jnp.where(bounded, inner, 3 * a)


def _where(condition: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _where_lanes(lanes: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(lanes.reshape(-1, *[1] * (a.ndim - 1)), a, b), one, other)
