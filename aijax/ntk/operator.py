"""The tangent kernel as an operator: products with vectors, without the kernel and without a Jacobian.

With J(x) the Jacobian of f(params, x) by the parameters, the kernel is Theta(x1, x2) = J(x1) J(x2)^T, and

    Theta(x1, x2) v = J(x1) w,      w = J(x2)^T v

is one vector-Jacobian product over x2 followed by one Jacobian-vector product over x1: about two forward and two
backward passes over the data, whatever the number of parameters. Where examples do not interact, w is a sum over
batches of x2 and the result a concatenation over batches of x1, so that memory is that of one batch, of the parameters
twice, and of the vectors. See Novak, Sohl-Dickstein and Schoenholz 2022, arXiv:2206.08720, section 3.2.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aijax.errors import ConfigError
from aijax.ntk.checks import check_params, check_rows, output_shapes
from aijax.ntk.derivatives import jvp, vjp
from aijax.ntk.empirical_fn import call, split_inputs
from aijax.ntk.independence import check_independent
from aijax.parallel import BATCH_AXES, batch_sharding, check_batch_size, replicated
from aijax.typing import Callable, Params, PyTree


def kernel_vector_product(
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Callable[[PyTree], PyTree]:
    """Returns `matvec`, for which `matvec(v) = Theta(x1, x2) v`, of the shape of `apply_fn(params, x1)`.

    v has the shape of `apply_fn(params, x2)`; its leaves may have one more axis, the last, which counts vectors: these
    share the forward passes. With x2 left out the operator is symmetric and positive semi-definite, and serves
    `aijax.linalg`: `cg(matvec, b, columns=True)`, `eigsh(matvec, key, example, k)`, `log_determinant`.

    Called with an array, `matvec` goes over the batches from Python, with one compiled program a batch; the data may
    then be NumPy or memory-mapped arrays, of which one batch at a time is on the device. Called while JAX traces, as
    within a solver, it goes over them by `jax.lax.scan`, with all data on the device. XLA on CPU runs convolutions
    within any loop about twenty times slower than outside; there, and for data that stay on the host, run the solver
    itself from Python: `with jax.disable_jit(): eigsh(matvec, ...)`; the products are compiled all the same.

    Args:
      apply_fn: any pure function; inputs and outputs are trees of arrays.
      params: a tree of floating arrays.
      x1: inputs, [n1, ...] in each leaf.
      x2: inputs [n2, ...]; default x1.
      batch_size: examples at a time, default all together; less than all needs examples that do not interact.
      mesh: split each batch over the axes `data` and `fsdp` of a mesh of `aijax.parallel.make_mesh`; parameters are
        held whole.

    Raises:
      ConfigError: parameters or outputs that are not floating numbers, inputs whose leaves differ in length, a batch
        size that is not positive or does not divide over the mesh, examples that interact, from `matvec` a vector of
        another shape.

    Source: Novak, Sohl-Dickstein and Schoenholz 2022, arXiv:2206.08720, section 3.2.

    >>> matvec = kernel_vector_product(lambda w, x: x @ w, jnp.ones(2), jnp.array([[1.0, 0.0], [3.0, 4.0]]))
    >>> matvec(jnp.array([1.0, 0.0])).tolist()
    [1.0, 3.0]
    """
    same = x2 is None
    x2 = x1 if same else x2
    check_params(params)
    sizes = [check_rows(name, x) for name, x in (("x1", x1), ("x2", x2))]
    check_batches(apply_fn, params, x2, batch_size, mesh)
    expected = output_shapes(apply_fn, params, x2)
    if mesh is not None:
        params = jax.device_put(params, replicated(mesh))

    def matvec(v):
        # a solver may run with compilation disabled, to have its steps outside of loops: not so its products
        with jax.disable_jit(False):
            columns = _check_vector(v, expected)
            dtypes = jax.tree.map(jnp.result_type, v)
            v = jax.tree.map(lambda leaf, out: jnp.asarray(leaf, out.dtype), v, expected)
            traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((v, params, x1, x2)))
            pull_batch = functools.partial(_pull, apply_fn, columns, params)
            w = _summed(pull_batch, (x2, v), sizes[1], batch_size, mesh, traced)
            push_batch = functools.partial(_push, apply_fn, columns, params, w)
            result = _joined(push_batch, (x1,), sizes[0], batch_size, mesh, traced)
            return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), result, dtypes)

    return matvec


def gauss_newton_vector_product(
    apply_fn: Callable[[Params, PyTree], PyTree],
    params: Params,
    x: PyTree,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Callable[[Params], Params]:
    """Returns `matvec`, for which `matvec(w) = J(x)^T J(x) w`, of trees like the parameters.

    But for zeros its eigenvalues are those of the kernel; it is the smaller matrix where outputs outnumber parameters.
    Arguments, errors and ways to call it are those of `kernel_vector_product`.

    >>> gauss_newton_vector_product(lambda w, x: x @ w, jnp.ones(2), jnp.eye(2)[:1])(jnp.array([3.0, 4.0])).tolist()
    [3.0, 0.0]
    """
    check_params(params)
    n = check_rows("x", x)
    check_batches(apply_fn, params, x, batch_size, mesh)
    output_shapes(apply_fn, params, x)
    if mesh is not None:
        params = jax.device_put(params, replicated(mesh))

    def matvec(w):
        with jax.disable_jit(False):
            traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((w, params, x)))
            return _summed(functools.partial(_push_and_pull, apply_fn, params, w), (x,), n, batch_size, mesh, traced)

    return matvec


def empirical_ntk_vp_fn(
    f: Callable[..., PyTree], x1: PyTree, x2: PyTree | None, params: Params, **apply_fn_kwargs
) -> Callable[[PyTree], PyTree]:
    """Returns `ntk_vp(cotangents)`, the product of the kernel of `f` at x1 and x2 with a vector like `f(params, x2)`.

    The whole batch is taken together; `kernel_vector_product` is the form for many examples.

    Args:
      f: `f(params, x, **kwargs)`, pure; parameters, inputs and outputs are trees of arrays.
      x1: inputs of the result.
      x2: inputs of the cotangents; None means x1.
      params: a tree of floating arrays.
      **apply_fn_kwargs: passed to `f`, divided between x1 and x2 as in `empirical_ntk_fn`.

    Raises:
      ConfigError: as `kernel_vector_product`.
    """
    check_params(params)
    inputs1, inputs2, static = split_inputs(x1, x2, apply_fn_kwargs)
    inputs2 = inputs1 if inputs2 is None else inputs2
    function = functools.partial(call, f, static)
    expected = output_shapes(function, params, inputs2)

    def ntk_vp(cotangents):
        _check_vector(cotangents, expected)
        return push(function, params, inputs1, pull(function, params, inputs2, cotangents))

    return ntk_vp


def pull(apply_fn: Callable, params: Params, x: PyTree, v: PyTree, columns: bool = False) -> Params:
    """Returns `J(x)^T v`, like the parameters; columns of v become the first axis."""
    _, backward = vjp(lambda p: apply_fn(p, x), params)
    return jax.vmap(backward, in_axes=-1)(v) if columns else backward(v)


def push(apply_fn: Callable, params: Params, x: PyTree, w: Params, columns: bool = False) -> PyTree:
    """Returns `J(x) w`, like the outputs; a first axis of w, with `columns`, becomes the last one."""

    def forward(w):
        return jvp(lambda p: apply_fn(p, x), params, w)[1]

    return jax.vmap(forward, out_axes=-1)(w) if columns else forward(w)


def row_ranges(n: int, batch_size: int | None) -> Iterator[slice]:
    """Returns the rows of each batch; the last may be shorter."""
    size = n if batch_size is None else batch_size
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def take(tree: PyTree, rows: slice, mesh: Mesh | None = None) -> PyTree:
    """Returns rows of every leaf, split over a mesh where they divide evenly, else held whole."""
    batch = jax.tree.map(lambda leaf: leaf[rows], tree)
    if mesh is None:
        return batch
    parts = mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]
    even = (rows.stop - rows.start) % parts == 0
    return jax.device_put(batch, batch_sharding(mesh) if even else replicated(mesh))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pull(apply_fn, columns, params, x, v):
    return pull(apply_fn, params, x, v, columns)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _push(apply_fn, columns, params, w, x):
    return push(apply_fn, params, x, w, columns)


@functools.partial(jax.jit, static_argnums=0)
def _push_and_pull(apply_fn, params, w, x):
    return pull(apply_fn, params, x, push(apply_fn, params, x, w))


def _summed(term, trees, n, batch_size, mesh, traced):
    """Returns the sum of `term(*batch)` over batches of rows: by a scan where traced, else from the host.

    From the host at most two batches are on their way to the device at once.
    """
    add = functools.partial(jax.tree.map, jnp.add)
    if not traced:
        total = None
        for rows in row_ranges(n, batch_size):
            jax.block_until_ready(total)
            part = term(*take(trees, rows, mesh))
            total = part if total is None else add(total, part)
        return total
    parts, rest = _batches(trees, n, batch_size, mesh)
    if parts is None:
        return term(*rest)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    zeros = jax.tree.map(lambda out: jnp.zeros(out.shape, out.dtype), jax.eval_shape(term, *first))
    total, _ = jax.lax.scan(lambda total, batch: (add(total, term(*batch)), None), zeros, parts)
    return total if rest is None else add(total, term(*rest))


def _joined(image, trees, n, batch_size, mesh, traced):
    """Returns the rows `image(*batch)` of all batches, one after the other; they are taken as in `_summed`."""
    results = []
    if traced:
        parts, rest = _batches(trees, n, batch_size, mesh)
        if parts is not None:
            images = jax.lax.map(lambda batch: image(*batch), parts)
            results.append(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), images))
        if rest is not None:
            results.append(image(*rest))
    else:
        for rows in row_ranges(n, batch_size):
            jax.block_until_ready(results[-1:])
            results.append(image(*take(trees, rows, mesh)))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results) if len(results) > 1 else results[0]


def _batches(tree, n, batch_size, mesh):
    """Returns the whole batches stacked (None if one holds all), and the rest of the rows (None if none is left)."""
    tree = jax.tree.map(jnp.asarray, tree)
    if batch_size is None or batch_size >= n:
        return None, tree
    count = n // batch_size

    def stack(leaf):
        stacked = leaf[: count * batch_size].reshape(count, batch_size, *leaf.shape[1:])
        if mesh is None:
            return stacked
        return jax.lax.with_sharding_constraint(stacked, NamedSharding(mesh, P(None, BATCH_AXES)))

    left = None if count * batch_size == n else jax.tree.map(lambda leaf: leaf[count * batch_size :], tree)
    return jax.tree.map(stack, tree), left


def check_batches(apply_fn: Callable, params: Params, x: PyTree, batch_size: int | None, mesh: Mesh | None) -> None:
    """Raises a `ConfigError` if the examples cannot be taken `batch_size` at a time."""
    if batch_size is None:
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size: expected a positive number of examples or None for all, got {batch_size!r}")
    if mesh is not None:
        check_batch_size(mesh, batch_size, where="batch_size")
    if batch_size < check_rows("x", x):

        def batch_of(n):
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((n, *leaf.shape[1:]), jnp.result_type(leaf)), x)

        try:
            check_independent(functools.partial(apply_fn, params), batch_of)
        except ConfigError:
            raise ConfigError(
                f"batch_size: examples cannot be taken {batch_size} at a time, because they interact within a batch of "
                "apply_fn; leave batch_size out to take all together"
            ) from None


def _check_vector(v, expected):
    """Returns whether a vector has columns, refusing one that is not like the outputs."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(expected)]
    given = [jnp.shape(leaf) for leaf in jax.tree.leaves(v)]
    if jax.tree.structure(v) != jax.tree.structure(expected) or (
        given != shapes and [shape[:-1] for shape in given] != shapes
    ):
        raise ConfigError(
            f"v: expected arrays of the shapes of the outputs at x2, {shapes}, or these with one more axis at the end, "
            f"got {given}"
        )
    return given != shapes
