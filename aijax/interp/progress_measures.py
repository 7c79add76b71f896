"""How far a network has come with the Fourier circuit of modular addition (Nanda et al. 2023).

A network that answers c = a + b mod p ends up with logits that are a sum of a few waves of a + b,

    logits(a, b, c) ~ sum_k alpha_k cos(2 pi k (a + b - c) / p),

long before its test loss tells. In the orthonormal Fourier basis F of functions on Z_p let comp_k be the projection of
the table of logits [p^2, p], column by column, on cos(2 pi k (a + b) / p) and sin(2 pi k (a + b) / p). Then (section 5)

    power_k      |comp_k|^2; the key frequencies are the largest
    restricted   the loss of the key comp_k and the mean of what is left: low once the circuit is there
    excluded     the loss of all but the key comp_k: high once nothing else answers
    Gini         (sum_i (2i - n - 1) x_(i)) / (n sum x): how few frequencies an embedding is made of

Tables of pairs have the row a p + b. All functions are pure arrays to arrays; p is read off the shapes.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError, DataError
from aijax.losses import softmax_cross_entropy
from aijax.typing import Array, Bool, Float, Int, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProgressMeasures:
    """What the logits of all pairs tell.

    Attributes:
      train_loss, test_loss, train_accuracy, test_accuracy: of the pairs trained on, and of the others.
      restricted_loss: of all pairs, with the key frequencies and the mean of the rest alone.
      excluded_train_loss, excluded_loss: without the key frequencies; of the pairs trained on, and of all.
      key_fraction: share of the key frequencies in the variance of the logits over pairs.
      logit_power: `[p // 2]`, of frequencies from 1.
      key_frequencies: most powerful first.
    """

    train_loss: Array
    test_loss: Array
    train_accuracy: Array
    test_accuracy: Array
    restricted_loss: Array
    excluded_train_loss: Array
    excluded_loss: Array
    key_fraction: Array
    logit_power: Float[Array, " f"]
    key_frequencies: Int[Array, " k"]


def measure_progress(
    logits: Float[Array, "n p"], trained: Bool[Array, " n"], num_frequencies: int = 5
) -> ProgressMeasures:
    """Returns the losses of all pairs, whole, restricted and excluded.

    Args:
      logits: of all pairs, `[p^2, p]`.
      trained: which of the pairs the network was trained on.
      num_frequencies: how many are key; those with most power are taken.

    Raises:
      DataError: a table that is not of all pairs.
      ConfigError: more frequencies than there are.

    >>> a, b, total = modular_pairs(5)
    >>> logits = 9 * jnp.cos(2 * jnp.pi * (total[:, None] - jnp.arange(5)) / 5)
    >>> found = jax.jit(measure_progress, static_argnums=2)(logits, a != b, 1)
    >>> int(found.key_frequencies[0]), bool(found.restricted_loss < 0.01), bool(found.excluded_loss > 1.6)
    (1, True, True)
    """
    p = _modulus("logits", logits)
    power = logit_power(logits)
    keys = key_frequencies(power, num_frequencies)
    labels = modular_pairs(p)[2]
    trained = jnp.asarray(trained, bool)
    if trained.shape != labels.shape:
        raise DataError(f"trained: expected one boolean a pair, [{p * p}], got {list(trained.shape)}")

    def mean(values, of):
        return jnp.sum(jnp.where(of, values, 0)) / jnp.sum(of)

    losses = softmax_cross_entropy(logits, labels)
    right = logits.argmax(-1) == labels
    excluded = softmax_cross_entropy(excluded_logits(logits, keys), labels)
    return ProgressMeasures(
        train_loss=mean(losses, trained),
        test_loss=mean(losses, ~trained),
        train_accuracy=mean(right, trained),
        test_accuracy=mean(right, ~trained),
        restricted_loss=softmax_cross_entropy(restricted_logits(logits, keys), labels).mean(),
        excluded_train_loss=mean(excluded, trained),
        excluded_loss=excluded.mean(),
        key_fraction=power[keys - 1].sum() / jnp.sum((logits - logits.mean(0)) ** 2),
        logit_power=power,
        key_frequencies=keys,
    )


def modular_pairs(p: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Returns a, b and a + b mod p of all pairs, in the order of the tables: row a p + b.

    >>> [column.tolist() for column in modular_pairs(2)]
    [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]]
    """
    a, b = np.indices((p, p)).reshape(2, -1)
    return a, b, (a + b) % p


def fourier_basis(p: int) -> Float[Array, "p p"]:
    """Returns the orthonormal Fourier basis of functions on Z_p, one a row: constant, cos 1, sin 1, cos 2, ...

    >>> basis = fourier_basis(6)
    >>> float(jnp.abs(basis @ basis.T - jnp.eye(6)).max()) < 1e-6
    True
    """
    constant = np.full((1, p), p**-0.5)
    return jnp.asarray(np.concatenate([constant, _waves(p).reshape(-1, p)[: p - 1]]), jnp.result_type(float))


def fourier_norms(table: Float[Array, "p d"]) -> Float[Array, " p"]:
    """Returns |F table| of each row of the Fourier basis: of what frequencies an embedding of Z_p is made.

    Args:
      table: one row a number, such as an embedding without the row of "="; for what the neurons of an MLP do to the
        logits, `(W_out W_U).T`.
    """
    return jnp.linalg.norm(fourier_basis(len(table)).astype(table.dtype) @ table, axis=-1)


def gini(values: Float[Array, "... n"]) -> Float[Array, "..."]:
    """Returns the Gini coefficient of values of at least 0: 0 if all are equal, 1 - 1 / n if all but one are 0.

    Of Fourier norms the constant is left out: `gini(fourier_norms(embedding)[1:])`.

    >>> float(gini(jnp.ones(4))), float(gini(jnp.array([0.0, 0.0, 1.0, 0.0])))
    (0.0, 0.75)
    """
    n = values.shape[-1]
    ranks = jnp.asarray(2 * np.arange(1, n + 1) - n - 1, values.dtype)
    return jnp.sum(ranks * jnp.sort(values, -1), -1) / (n * jnp.sum(values, -1))


def logit_power(logits: Float[Array, "n p"]) -> Float[Array, " f"]:
    """Returns |comp_k|^2 of the frequencies k = 1 .. p // 2 of a + b in the logits of all pairs.

    Raises:
      DataError: a table that is not of all pairs.
    """
    p = _modulus("logits", logits)
    return p * jnp.sum((_waves(p, logits.dtype) @ _by_sum(logits)) ** 2, axis=(1, 2))


def key_frequencies(power: Float[Array, " f"], count: int = 5) -> Int[Array, " k"]:
    """Returns the `count` frequencies with most power, most powerful first.

    Raises:
      ConfigError: more than there are.

    >>> key_frequencies(jnp.array([0.1, 3.0, 2.0]), 2).tolist()
    [2, 3]
    """
    if not 1 <= count <= len(power):
        raise ConfigError(f"count: expected 1 to {len(power)} frequencies, got {count}")
    return jax.lax.top_k(power, count)[1] + 1


def restricted_logits(logits: Float[Array, "n p"], frequencies: Int[Array, " k"]) -> Float[Array, "n p"]:
    """Returns the key components of the logits, and the mean over pairs of the rest.

    Args:
      logits: of all pairs.
      frequencies: the key ones, from 1 to p // 2; others that are known only inside `jit` give NaN.

    Raises:
      ConfigError: a frequency that is not there.
      DataError: a table that is not of all pairs.
    """
    return _components(logits, frequencies) + logits.mean(0)  # a component's mean over pairs is 0


def excluded_logits(logits: Float[Array, "n p"], frequencies: Int[Array, " k"]) -> Float[Array, "n p"]:
    """Returns the logits without their key components; the arguments are those of `restricted_logits`."""
    return logits - _components(logits, frequencies)


def neuron_frequencies(activations: Float[Array, "n m"]) -> tuple[Int[Array, " m"], Float[Array, " m"]]:
    """Returns each neuron's best frequency and its share, from 0 to 1, in what is not constant of the neuron.

    With the power of the products of basis functions of a and of b, the share of k is that of the 8 products of
    const, cos k and sin k that are not constant (3 for k = p / 2). A neuron that is constant has share 0.

    Args:
      activations: of all pairs, one column a neuron.

    Raises:
      DataError: a table that is not of all pairs.
    """
    p = _modulus("activations", activations, square=False)
    basis = fourier_basis(p).astype(activations.dtype)
    tables = activations.reshape(p, p, -1)
    power = jnp.einsum("ia,jb,abm->ijm", basis, basis, tables, optimize=True) ** 2
    frequency = (np.arange(p) + 1) // 2  # of each row of the basis
    groups = jnp.asarray(frequency == np.arange(p // 2 + 1)[:, None], activations.dtype)
    power = jnp.einsum("fi,gj,ijm->fgm", groups, groups, power, optimize=True)
    rounding = power[0, 0] * (p * jnp.finfo(power.dtype).eps) ** 2
    power = power.at[0, 0].set(0)
    single = power[0, 1:] + power[1:, 0] + jnp.einsum("ffm->fm", power)[1:]
    total = power.sum((0, 1))
    share = jnp.where(total > rounding, single / jnp.where(total > rounding, total, 1), 0)
    return share.argmax(0) + 1, share.max(0)


def sum_of_squared_weights(params: Params) -> Float[Array, ""]:
    """Returns the sum of the squares of all parameters, which weight decay brings down when the circuit is there.

    >>> float(sum_of_squared_weights({"a": jnp.ones(3), "b": jnp.full(1, 2.0)}))
    7.0
    """
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def _modulus(name, table, square=True):
    p = math.isqrt(table.shape[0]) if table.ndim == 2 else 0
    if p < 2 or p * p != table.shape[0] or (square and table.shape[1] != p):
        expected = "[p^2, p]" if square else "[p^2, neurons]"
        raise DataError(f"{name}: expected a table of all pairs, {expected}, got {list(table.shape)}")
    return p


def _waves(p, dtype=None):
    """Orthonormal cosine and sine of each frequency, `[p // 2, 2, p]`; the sine of p / 2 is zero."""
    angles = 2 * np.pi / p * (np.arange(1, p // 2 + 1)[:, None] * np.arange(p) % p)
    waves = np.stack([np.cos(angles), np.sin(angles)], 1) * (2 / p) ** 0.5
    if p % 2 == 0:
        waves[-1] = np.stack([np.cos(angles[-1]) * p**-0.5, np.zeros(p)])
    return waves if dtype is None else jnp.asarray(waves, dtype)


def _by_sum(logits):
    """The mean of the logits over the pairs of each sum, `[p, p]`."""
    p = logits.shape[1]
    return jnp.zeros((p, p), logits.dtype).at[modular_pairs(p)[2]].add(logits) / p


def _components(logits, frequencies):
    p = _modulus("logits", logits)
    rows = jnp.asarray(frequencies) - 1
    if not isinstance(rows, jax.core.Tracer) and not 0 <= np.min(rows) <= np.max(rows) < p // 2:
        raise ConfigError(f"frequencies: expected 1 to {p // 2}, got {np.asarray(frequencies).tolist()}")
    rows = jnp.where(rows < 0, p, rows)
    waves = _waves(p, logits.dtype).at[rows].get(mode="fill", fill_value=jnp.nan).reshape(-1, p)
    return (waves.T @ (waves @ _by_sum(logits)))[modular_pairs(p)[2]]
