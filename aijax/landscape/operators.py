"""Curvature of a loss as products with vectors of the parameters' structure.

    H v = d/de grad L(theta + e v)                                                          (Pearlmutter 1994)
    G v = mean_i J_i^T (d^2 loss_i) J_i v,          J_i = d f(x_i) / d theta                (Schraudolph 2002)
    F v = mean_i g_i (g_i . v),                     g_i = d loss_i / d theta

H is the Hessian, G the generalised Gauss-Newton matrix, which for the losses of `aijax.landscape.outputs` is the Fisher
information; F with the targets of the data is the empirical Fisher, and with drawn ones an estimate of G. Each verb
gives `v -> A v` for `aijax.linalg`: `eigsh(matvec, key, params, k)`, `estimate_trace`, `slq`, `cg`. It is a pytree:
`jax.jit(lambda matvec: ...)` compiles once for all parameters of a run.

The data are streamed batch by batch and may be sharded, as may the parameters: a product lies where they lie.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.landscape.batches import Batches, as_batches, mean_over
from aijax.landscape.outputs import OUTPUT_LOSSES, output_curvature, sampled_curvature
from aijax.trees import match_rules, named_leaves
from aijax.typing import Any, Array, Callable, Params, PRNGKey, PyTree

LossFn = Callable[[Params, PyTree], Array]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["params", "batches"], meta_fields=["product", "functions"]
)
@dataclass(frozen=True)
class Curvature:
    """A symmetric matrix, called as `v -> A v`; a pytree, so that one program serves at all parameters."""

    product: Callable[..., PyTree]
    functions: tuple
    params: Params
    batches: Batches

    def __call__(self, v: PyTree) -> PyTree:
        return self.product(*self.functions, self.params, self.batches, v)


def hessian(loss_fn: LossFn, params: Params, batches: Any) -> Curvature:
    """Returns `v -> H v`, H the Hessian of the mean loss.

    Args:
      loss_fn: `(params, batch)` to the mean loss of the batch, a scalar that can be differentiated twice.
      params: where.
      batches: one batch, or a list of batches; each array counts examples first.

    Raises:
      ConfigError: a loss that is no scalar or has no second derivative.

    >>> matvec = hessian(lambda w, x: jnp.mean(x * w**3), jnp.array([2.0]), jnp.ones((4, 1)))
    >>> matvec(jnp.array([1.0])).tolist()
    [12.0]
    """
    batches = as_batches(batches)
    check_loss(loss_fn, params, batches, twice=True)
    return Curvature(_hessian_product, (loss_fn,), params, batches)


def gauss_newton(apply_fn: Callable[[Params, PyTree], Array], loss: str, params: Params, batches: Any) -> Curvature:
    """Returns `v -> G v`, G the generalised Gauss-Newton matrix of the mean loss, positive semidefinite.

    Args:
      apply_fn: `(params, inputs)` to outputs `[b, ..., k]`, k those of one position's loss.
      loss: "cross_entropy", "binary_cross_entropy" or "squared_error"; see `aijax.landscape.outputs`.
      params: where.
      batches: inputs as one batch, or a list of batches; targets play no part.

    >>> gauss_newton(lambda w, x: x * w, "squared_error", jnp.ones(1), jnp.full((4, 1), 3.0))(jnp.ones(1)).tolist()
    [18.0]
    """
    choose(OUTPUT_LOSSES, loss, "loss")
    return Curvature(_gauss_newton_product, (apply_fn, loss), params, as_batches(batches))


def sampled_fisher(
    key: PRNGKey, apply_fn: Callable[[Params, PyTree], Array], loss: str, params: Params, batches: Any
) -> Curvature:
    """Returns `v -> F v`, F an unbiased estimate of `gauss_newton` by one drawn target for each position.

    Args: as `gauss_newton`; key: for the targets, the same in every product.
    """
    choose(OUTPUT_LOSSES, loss, "loss")
    batches = as_batches(batches)
    counts = [len(jax.tree.leaves(group)[0]) for group in batches.groups]
    keys = iter(jax.random.split(key, sum(counts)))
    keyed = tuple(
        (jnp.stack([next(keys) for _ in range(count)]), group)
        for count, group in zip(counts, batches.groups, strict=True)
    )
    return Curvature(_sampled_product, (apply_fn, loss), params, Batches(keyed, batches.weights))


def empirical_fisher(loss_fn: LossFn, params: Params, batches: Any) -> Curvature:
    """Returns `v -> F v`, F the uncentred second moment of the gradients of single examples.

    Args: as `hessian`; the loss of one example is that of a batch of one.

    Raises:
      ConfigError: a loss that is no scalar.

    >>> empirical_fisher(lambda w, x: jnp.mean(x * w), jnp.ones(1), jnp.array([[1.0], [3.0]]))(jnp.ones(1)).tolist()
    [5.0]
    """
    batches = as_batches(batches)
    check_loss(loss_fn, params, batches)
    return Curvature(_empirical_product, (loss_fn,), params, batches)


def mean_loss(loss_fn: LossFn, params: Params, batches: Any) -> Array:
    """Returns the mean loss over all examples."""
    batches = as_batches(batches)
    check_loss(loss_fn, params, batches)
    return mean_over(lambda batch: loss_fn(params, batch), batches)


def linearize(matvec: Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
    """Returns the same product with what does not depend on v worked out and held: a third less work for a Hessian.

    Held is what a gradient holds, of one batch. The curvature of several batches is streamed as before, and a function
    that is no `Curvature` is given back.
    """
    if not isinstance(matvec, Curvature):
        return matvec
    groups = matvec.batches.groups
    if len(groups) > 1 or len(jax.tree.leaves(groups[0])[0]) > 1:
        return matvec
    return jax.linearize(matvec, jax.tree.map(jnp.zeros_like, matvec.params))[1]


def subset(params: Params, patterns: str | list[str]) -> tuple[dict[str, Array], Callable[[dict[str, Array]], Params]]:
    """Returns the parameters whose paths match, by name, and how they are put back: for the curvature of a block.

    Args:
      params: all parameters.
      patterns: regular expressions of whole paths.

    Raises:
      ConfigError: a pattern that matches no parameter.

    >>> part, whole = subset({"a": 1.0, "b": 2.0}, "b")
    >>> part, whole({"b": 5.0})
    ({'b': 2.0}, {'a': 1.0, 'b': 5.0})
    """
    rules = [(pattern, True) for pattern in ([patterns] if isinstance(patterns, str) else patterns)]
    chosen = match_rules(rules, params, default=lambda *_: False, where="patterns")
    names = named_leaves(params)
    part = {name: leaf for (name, leaf), taken in zip(names.items(), jax.tree.leaves(chosen), strict=True) if taken}

    def whole(part):
        return jax.tree.unflatten(jax.tree.structure(params), [part.get(name, leaf) for name, leaf in names.items()])

    return part, whole


def check_loss(loss_fn: LossFn, params: Params, batches: Batches, *, twice: bool = False) -> None:
    """Raises a `ConfigError` for a loss that is no scalar or, where it is to be, not twice differentiable."""
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batches.groups[0])
    found = _loss.eval_shape(loss_fn, params, batch)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        told = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", found)
        raise ConfigError(f"loss_fn: expected a floating scalar, the mean loss of a batch, got {told}")
    if twice:
        try:
            _slope_along_itself.eval_shape(loss_fn, params, batch)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"loss_fn: it cannot be differentiated twice: {str(error).splitlines()[0]}") from None


# compiled functions remember what they have traced: a loss is looked at once for all parameters of its shapes
_loss = jax.jit(lambda loss_fn, params, batch: loss_fn(params, batch), static_argnums=0)
_slope_along_itself = jax.jit(
    lambda loss_fn, params, batch: jax.jvp(lambda p: jax.grad(loss_fn)(p, batch), (params,), (params,)),
    static_argnums=0,
)


def _hessian_product(loss_fn, params, batches, v):
    def product(batch):
        return jax.jvp(lambda p: jax.grad(loss_fn)(p, batch), (params,), (v,))[1]

    return mean_over(product, batches)


def _through_outputs(apply_fn, params, inputs, v, curvature):
    outputs, moved = jax.jvp(lambda p: apply_fn(p, inputs), (params,), (v,))
    _, back = jax.vjp(lambda p: apply_fn(p, inputs), params)
    return back(curvature(outputs, moved))[0]


def _gauss_newton_product(apply_fn, loss, params, batches, v):
    def product(inputs):
        return _through_outputs(apply_fn, params, inputs, v, lambda f, u: output_curvature(loss, f, u))

    return mean_over(product, batches)


def _sampled_product(apply_fn, loss, params, batches, v):
    def product(batch):
        key, inputs = batch
        return _through_outputs(apply_fn, params, inputs, v, lambda f, u: sampled_curvature(key, loss, f, u))

    return mean_over(product, batches)


def _empirical_product(loss_fn, params, batches, v):
    def product(batch):
        examples = jax.tree.map(lambda leaf: leaf[:, None], batch)

        def losses(params):
            return jax.vmap(lambda example: loss_fn(params, example))(examples)

        values, slopes = jax.jvp(losses, (params,), (v,))
        return jax.vjp(losses, params)[1](slopes / len(values))[0]

    return mean_over(product, batches)
