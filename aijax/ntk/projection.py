"""Random projections of per-example gradients: features whose inner products estimate the tangent kernel.

With g_i the gradient of an output of example i and r_1 ... r_k vectors of independent signs,

    phi_ij = <r_j, g_i> / sqrt(k),     E[<phi_i, phi_i'>] = <g_i, g_i'> = Theta_ii'

since E[r r^T] = I, with a variance of at most `(|g_i|^2 |g_i'|^2 + <g_i, g_i'>^2) / k` (Johnson and Lindenstrauss 1984;
with signs, Achlioptas 2003, J. Comput. Syst. Sci. 66). The root-mean-square error of an entry is thus at most
`sqrt(2 / k) |g_i| |g_i'|`, whatever the number of parameters. Park et al. 2023 (TRAK, arXiv:2303.14186) attribute
predictions to training examples with such features.

There are two ways to the same numbers. "jvp" pushes directions forward: a column of features is J(x) r_j, one
linearised forward pass over the data, and no gradient is formed. "vjp" forms the gradients of a batch, one backward
pass for each output, and multiplies them by blocks of directions. The signs of direction j are drawn from the key for
each parameter by itself, so that they depend neither on the way nor on the sizes of batches and blocks.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from aijax import flops, parallel
from aijax.errors import ConfigError, choose
from aijax.ntk.checks import check_params, check_rows, output_shapes
from aijax.ntk.derivatives import jvp, trace
from aijax.ntk.operator import check_batches, row_ranges, take
from aijax.trees import count_parameters
from aijax.typing import Callable, Params, PRNGKey, PyTree

BLOCK_ELEMENTS = 1 << 24
"""Signs that a block of directions may hold, unless the caller says."""
GRADIENT_ELEMENTS = 1 << 26
"""Elements that the gradients of a batch may hold, unless the caller says."""
WORD = 32


def projected_gradients(
    key: PRNGKey,
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x: PyTree,
    dim: int,
    *,
    batch_size: int | None = None,
    block_size: int | None = None,
    method: str = "auto",
    mesh: Mesh | None = None,
) -> PyTree:
    """Returns features [n, ..., dim] of the gradients of each output of each example, in float32 at least.

    For outputs [n, o] they are [n, o, dim]; for scalar outputs [n], [n, dim]. Inner products over the last axis
    estimate the entries of `empirical_ntk`; `phi.reshape(n, -1) / sqrt(o)` are features of the mean over outputs. A
    tree of outputs gives a tree of features, made with the same directions. To project the gradient of a loss, give
    that as `apply_fn`.

    Args:
      key: for the directions; the same key gives the same features whatever the other arguments, to rounding.
      apply_fn: any pure function; examples that interact can be taken by "jvp" alone, all together.
      params: a tree of floating arrays.
      x: inputs [n, ...], a tree of device, NumPy or memory-mapped arrays.
      dim: the number of directions k.
      batch_size: examples at a time; default all together, with "vjp" so many that their gradients number 2^26.
      block_size: directions at a time; default so many that their signs number 2^24.
      method: "jvp", "vjp", or "auto": the one with fewer floating-point operations by count.
      mesh: split each batch over the axes `data` and `fsdp` of a mesh.

    Raises:
      ConfigError: a size that is not positive, an unknown method, examples that interact with "vjp"; as
        `kernel_vector_product`.

    Source: Park et al. 2023, arXiv:2303.14186, section 3.2.

    >>> x = jnp.eye(3)
    >>> phi = projected_gradients(jax.random.key(0), lambda w, x: x @ w, jnp.ones(3), x, 64)
    >>> phi.shape, (phi @ phi.T).diagonal().tolist()
    ((3, 64), [1.0, 1.0, 1.0])
    """
    check_params(params)
    for name, value in (("dim", dim), ("block_size", 1 if block_size is None else block_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: expected a positive whole number, got {value!r}")
    n = check_rows("x", x)
    outputs = output_shapes(apply_fn, params, x)
    check_batches(apply_fn, params, x, batch_size, mesh)
    if method == "auto":
        method = cheapest(apply_fn, params, x, dim) if _independent(apply_fn, params, x) else "jvp"
    elif method == "vjp" and not _independent(apply_fn, params, x):
        raise ConfigError("method: 'vjp' takes examples one by one, and those of apply_fn interact; 'jvp' takes such")
    project = choose({"jvp": _forward, "vjp": _backward}, method, "method")
    size = max(1, count_parameters(params))
    if block_size is None:
        block_size = max(1, BLOCK_ELEMENTS // size)
    if method == "vjp" and batch_size is None:
        gradients = size * sum(out.size for out in jax.tree.leaves(outputs)) / n
        batch_size = max(1, int(GRADIENT_ELEMENTS / gradients))
    if mesh is not None:
        params = jax.device_put(params, parallel.replicated(mesh))
        key = jax.device_put(key, parallel.replicated(mesh))
    rows = list(row_ranges(n, batch_size))
    features = project(apply_fn, params, x, key, dim, min(block_size, dim), rows, mesh)
    return jax.tree.map(lambda phi, out: phi.reshape(*out.shape, dim), features, outputs)


def cheapest(apply_fn: Callable, params: Params, x: PyTree, dim: int) -> str:
    """Returns the way that costs fewer operations for an example: "jvp" or "vjp"."""
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), jnp.result_type(leaf)), x)
    forward = flops.count(apply_fn, params, example).total
    outputs = sum(math.prod(out.shape) for out in jax.tree.leaves(jax.eval_shape(apply_fn, params, example)))
    # both passes linearise a product as two products, and share the forward pass
    projecting = 2 * outputs * dim * count_parameters(params)
    return "jvp" if 2 * dim * forward <= 2 * outputs * forward + projecting else "vjp"


def _independent(apply_fn, params, x):
    try:
        check_batches(apply_fn, params, x, 1, None)
    except ConfigError:
        return False
    return True


def directions(key: PRNGKey, params: Params, first: int, count: int) -> Params:
    """Returns the signs of `count` directions from the one numbered `first` on: like params, with a first axis more.

    A direction's signs for a parameter are the bits of words drawn from the key folded with the direction's number and
    the parameter's place.
    """
    leaves, structure = jax.tree.flatten(params)

    def of_direction(number):
        own = jax.random.fold_in(key, number)
        return [_signs(jax.random.fold_in(own, place), leaf) for place, leaf in enumerate(leaves)]

    return structure.unflatten(jax.lax.map(of_direction, first + jnp.arange(count)))


def _signs(key, leaf):
    size, dtype = math.prod(jnp.shape(leaf)), jnp.result_type(leaf)
    words = jax.random.bits(key, (-(-size // WORD),), jnp.uint32)
    bits = (words[:, None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
    return (1 - 2 * bits.reshape(-1)[:size].astype(jnp.int8)).astype(dtype).reshape(jnp.shape(leaf))


def _forward(apply_fn, params, x, key, dim, block_size, rows, mesh):
    """Returns the features by pushing blocks of directions forward: each block is drawn once and meets every batch."""
    blocks = []
    for first in range(0, dim, block_size):
        block = _directions(key, params, first, min(block_size, dim - first))
        parts = []
        for batch in rows:
            jax.block_until_ready(parts[-1:])
            parts.append(_push_block(apply_fn, params, take(x, batch, mesh), block, dim))
        blocks.append(jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts))
    return jax.tree.map(lambda *blocks: jnp.concatenate(blocks, -1), *blocks)


def _backward(apply_fn, params, x, key, dim, block_size, rows, mesh):
    """Returns the features by multiplying the gradients of each batch by blocks of directions."""
    parts = []
    for batch in rows:
        jax.block_until_ready(parts[-1:])
        parts.append(_project_batch(apply_fn, dim, block_size, params, take(x, batch, mesh), key))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)


_directions = jax.jit(directions, static_argnums=3)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _push_block(apply_fn, params, x, block, dim):
    image = jax.vmap(lambda direction: jvp(lambda p: apply_fn(p, x), params, direction)[1], out_axes=-1)(block)
    return jax.tree.map(lambda y: _scaled(y, dim), image)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _project_batch(apply_fn, dim, block_size, params, x, key):
    def gradients(example):
        """Returns for each output of an example its gradients, `[outputs, *parameter]`."""
        one = jax.tree.map(lambda leaf: leaf[None], example)
        _, flat = trace(lambda p: jax.tree.map(lambda y: y.reshape(-1), apply_fn(p, one)), params)
        jacobian = jax.jacrev(flat)(params)
        return jax.tree.map(jax.tree.leaves, jacobian, is_leaf=lambda tree: jax.tree.structure(tree) == of_params)

    of_params = jax.tree.structure(params)
    outputs = jax.eval_shape(apply_fn, params, x)
    rows = [jax.tree.leaves(tree) for tree in jax.tree.structure(outputs).flatten_up_to(jax.vmap(gradients)(x))]

    def block(first):
        signs = jax.tree.leaves(directions(key, params, first, block_size))
        return [sum(_product(g, r) for g, r in zip(gradient, signs, strict=True)) for gradient in rows]

    found = jax.lax.map(block, block_size * jnp.arange(-(-dim // block_size)))
    features = [jnp.moveaxis(phi, 0, -2).reshape(*phi.shape[1:-1], -1)[..., :dim] for phi in found]
    return jax.tree.structure(outputs).unflatten([_scaled(phi, dim) for phi in features])


def _product(gradient, signs):
    """Returns `[n, outputs, block]`: the inner products of gradients `[n, outputs, ...]` with signs `[block, ...]`."""
    wide = jnp.promote_types(gradient.dtype, jnp.float32)
    gradient = gradient.reshape(*gradient.shape[:2], -1)
    signs = signs.reshape(signs.shape[0], -1)
    return jnp.einsum("nop,kp->nok", gradient, signs, precision="highest", preferred_element_type=wide)


def _scaled(features, dim):
    return features.astype(jnp.promote_types(features.dtype, jnp.float32)) / dim**0.5
