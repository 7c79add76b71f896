"""Traces, diagonals and Frobenius norms: unbiased, as far off as they say, exact where a sketch holds all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import linalg
from aijax.errors import ConfigError

METHODS = ("hutchinson", "hutch++", "xtrace")
OF = {
    "trace": (linalg.estimate_trace, np.trace),
    "diagonal": (linalg.estimate_diagonal, np.diag),
    "norm": (linalg.estimate_frobenius_norm, np.linalg.norm),
}


@pytest.fixture(scope="module")
def matrix():
    random = np.random.default_rng(0)
    q, _ = np.linalg.qr(random.normal(size=(40, 40)))
    lower = np.tril(random.normal(size=(40, 40)), -1)
    return (q * 0.8 ** np.arange(40)) @ q.T + 0.02 * lower  # not symmetric


@pytest.fixture(scope="module")
def estimates(matrix):
    """The value and the standard error that each method gives with 24 products, for 400 keys."""

    @jax.jit
    def run(a, keys):
        def one(key, method, of):
            found = OF[of][0](lambda v: a @ v, key, 40, 24, method=method)
            return found.value, found.standard_error

        return {
            (method, of): jax.vmap(lambda key, method=method, of=of: one(key, method, of))(keys)
            for method in METHODS
            for of in OF
        }

    with jax.enable_x64(True):
        return run(jnp.asarray(matrix), jax.random.split(jax.random.key(0), 400))


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("method", METHODS)
def test_estimates_are_unbiased_and_as_far_off_as_they_say(matrix, estimates, method, of):
    values, errors = (np.asarray(part) for part in estimates[method, of])
    exact = OF[of][1](matrix)
    spread = values.std(0, ddof=1)
    allowed = 4.5 * spread / 20 + (0.1 * spread if of == "norm" else 0)  # the root of an unbiased square is biased
    assert (np.abs(values.mean(0) - exact) <= allowed).all()
    told = np.sqrt((errors**2).mean(0))
    # leaving one out gives errors that are somewhat too large (Epperly et al. 2024, section 4)
    assert (told > 0.75 * spread).all() and np.median(told / spread) < 1.6


def test_a_sketch_pays_where_the_spectrum_falls(estimates):
    spread = {method: np.asarray(estimates[method, "trace"][0]).std() for method in METHODS}
    assert spread["xtrace"] < spread["hutch++"] < 0.8 * spread["hutchinson"]


@pytest.mark.parametrize("method", METHODS[1:])
def test_low_rank_is_exact_on_trees_and_so_is_nothing_at_all(method):
    with jax.enable_x64(True):
        u = {"a": jnp.arange(6.0).reshape(3, 2, 1), "b": jnp.ones((4, 1))}

        def matvec(scale, v):
            inner = sum(jnp.sum(u[name][..., 0] * v[name]) for name in u)
            return {name: scale * u[name][..., 0] * inner for name in u}

        example = {name: leaf[..., 0] for name, leaf in u.items()}
        products = 12

        @jax.jit
        def run(scale, key):
            def value(scale):
                return linalg.estimate_trace(
                    lambda v: matvec(scale, v), key, example, products, method=method, batch_size=3
                ).value

            diagonal = linalg.estimate_diagonal(lambda v: matvec(scale, v), key, example, products, method=method)
            return jax.value_and_grad(value)(scale), diagonal

        (value, slope), diagonal = run(2.0, jax.random.key(1))
        assert value == pytest.approx(2 * 59, rel=1e-12) and slope == pytest.approx(59, rel=1e-12)
        np.testing.assert_allclose(diagonal.value["a"], 2 * example["a"] ** 2, atol=1e-12)
        assert np.max(diagonal.standard_error["b"]) < 1e-12
        (value, _), diagonal = run(0.0, jax.random.key(1))
        assert value == 0 and not np.any(diagonal.value["b"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((3, 1, "hutchinson"), "num_products: expected a whole number of at least 2, got 1"),
        ((3, 3, "xtrace"), "num_products: expected a whole number of at least 4, got 3"),
        ((3, 9, "xtrace"), "sketch with 4 vectors, more than the dimension 3"),
        ((3, 9, "xtrce"), "did you mean 'xtrace'"),
    ],
)
def test_what_cannot_be_estimated_is_told(words, message):
    size, products, method = words
    with pytest.raises(ConfigError, match=message):
        linalg.estimate_trace(lambda v: v, jax.random.key(0), size, products, method=method)
