"""Products with few entries against dense ones, with their derivatives, mapped."""

import jax
import jax.numpy as jnp
import numpy as np

from aijax.interp.sparse_codes import accumulated, dense_codes, products_at, sparse_product

N, D, M, K = 5, 3, 7, 2


def test_products_and_their_derivatives_are_the_dense_ones():
    rng = np.random.default_rng(0)
    values, x, dictionary = rng.normal(size=(N, K)), rng.normal(size=(N, D)), rng.normal(size=(M, D))
    indices = np.stack([rng.permutation(M)[:K] for _ in range(N)])
    order = rng.permutation(N * K)  # the same entries in another order, with their rows
    rows, places = (np.reshape(np.ravel(a)[order], (K, N)) for a in (np.repeat(np.arange(N), K), indices))
    direction = rng.normal(size=values.shape), rng.normal(size=x.shape), rng.normal(size=dictionary.shape)

    def sparse(values, x, dictionary):
        products = products_at(x, indices, dictionary)
        mixed = jnp.ravel(values * products)[order].reshape(K, N)
        total = jnp.sum(sparse_product(mixed, places, dictionary, rows, N) ** 2)
        return total + jnp.sum(jnp.sin(accumulated(values, indices, x, M)) * dictionary)

    def dense(values, x, dictionary):
        codes = dense_codes(values, indices, M)
        total = jnp.sum(((codes * (x @ dictionary.T)) @ dictionary) ** 2)
        return total + jnp.sum(jnp.sin(codes.T @ x) * dictionary)

    def derivatives(function, *inputs):
        slope = jax.grad(function, argnums=(0, 1, 2))
        along = jax.jvp(slope, inputs, direction)
        mapped = jax.vmap(slope, (0, None, None))(jnp.stack([inputs[0], 2 * inputs[0]]), *inputs[1:])
        return function(*inputs), along, mapped

    with jax.enable_x64(True):
        ours, theirs = jax.jit(lambda *inputs: (derivatives(sparse, *inputs), derivatives(dense, *inputs)))(
            values, x, dictionary
        )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
