"""Kernels of several outputs: the intrinsic and the linear model of coregionalisation.

    cov(f_p(x), f_q(x')) = sum_t B_t[p, q] k_t(x, x'),    B_t = W_t W_t^T + diag(kappa_t)

One term is the intrinsic model (Bonilla, Chai and Williams 2008, equation 2: multi-task GPs), several the linear model
(Alvarez, Rosasco and Lawrence 2012, section 4.2). A point says which output it is of in its last column, so that each
output may be observed where it will, and everything that takes points takes these:

    kernel = multi_output(RBF(), num_outputs=2)
    posterior = gp.fit(gp.GP(kernel), with_all_outputs(x, 2), y.reshape(-1))          # y: [n, 2]
    mean, std = gp.predict(posterior, with_output(x_new, 1))                          # of the second output
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from aijax.errors import ConfigError
from aijax.kernels.base import Kernel, as_points
from aijax.kernels.indexed import split_index, with_index
from aijax.parameters import noun, parameter
from aijax.typing import Any, Array, Float, Int


def multi_output(kernel: Kernel | Sequence[Kernel], num_outputs: int, rank: int = 1) -> "ICM | LMC":
    """Returns a kernel of several outputs to start a fit from: `ICM` of one kernel, `LMC` of several.

    Each `W` starts with the first `rank` cosine waves over the outputs, and `kappa` at 1/2, so that `B` has about unit
    diagonal and no symmetry that a gradient could not leave.

    >>> from aijax.kernels.stationary import RBF
    >>> multi_output(RBF(), 3).mixing.shape
    (3, 1)
    """
    for name, value in (("num_outputs", num_outputs), ("rank", rank)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: expected a positive integer, got {value!r}")
    if rank > num_outputs:
        raise ConfigError(f"rank: expected at most num_outputs = {num_outputs}, got {rank}")
    phase = np.pi * (np.arange(num_outputs)[:, None] + 0.5) * np.arange(rank) / num_outputs
    mixing = np.cos(phase) / np.sqrt(2 * rank)
    kappa = np.full(num_outputs, 0.5)
    if isinstance(kernel, Kernel):
        return ICM(kernel, mixing, kappa)
    terms = tuple(kernel)
    return LMC(terms, (mixing,) * len(terms), (kappa,) * len(terms))


@noun
class ICM(Kernel):
    """`(W W^T + diag(kappa))[p, p'] k(x, x')`: all outputs are mixtures of functions with one kernel.

    Points are `[n, d + 1]`: the last column is the output, 0 to P - 1 (see `with_output`, `with_all_outputs`).

    Args:
      kernel: k, of points `[n, d]`.
      mixing: W, `[P, R]`: what each output takes of R shared functions.
      kappa: `[P]`, at least 0: the variance of what an output has for itself.

    Source: Bonilla, Chai and Williams 2008, equation 2.

    >>> from aijax.kernels.stationary import RBF
    >>> ICM(RBF(), [[1.0], [2.0]], [0.0, 1.0])(with_all_outputs(jnp.zeros((1, 3)), 2)).tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """

    kernel: Kernel
    mixing: Any = parameter()
    kappa: Any = parameter(constraint="nonnegative")

    def gram(self, x1, x2=None):
        points1, output1, mixing1, kappa1 = self._outputs(x1)
        points2, output2, mixing2, _ = (None, output1, mixing1, None) if x2 is None else self._outputs(x2)
        shared = jnp.matmul(mixing1, mixing2.T, precision="highest")
        own = jnp.where(output1[:, None] == output2, kappa1[:, None], 0)
        return (shared + own) * self.kernel(points1, points2)

    def gram_diagonal(self, x):
        points, _, mixing, kappa = self._outputs(x)
        return (jnp.sum(mixing**2, -1) + kappa) * self.kernel.diagonal(points)

    def _outputs(self, x):
        mixing, kappa = jnp.asarray(self.mixing, x.dtype), jnp.asarray(self.kappa, x.dtype)
        if mixing.ndim != 2:
            raise ConfigError(f"mixing: expected [outputs, rank], got an array of shape {mixing.shape}")
        if kappa.shape != mixing.shape[:1]:
            raise ConfigError(f"kappa: expected one for each of {len(mixing)} outputs, got shape {kappa.shape}")
        points, output = split_index(x, len(mixing), f"the output, 0 to {len(mixing) - 1}")
        return points, output, mixing[output], kappa[output]


@noun
class LMC(Kernel):
    """`sum_t (W_t W_t^T + diag(kappa_t))[p, p'] k_t(x, x')`: mixtures of functions with several kernels.

    Args:
      kernels: k_t, a tuple.
      mixings, kappas: tuples of W_t and kappa_t as in `ICM`, one for each kernel.

    Source: Alvarez, Rosasco and Lawrence 2012, section 4.2.1.
    """

    kernels: tuple[Kernel, ...]
    mixings: tuple[Any, ...] = parameter()
    kappas: tuple[Any, ...] = parameter(constraint="nonnegative")

    def check(self):
        if not len(self.kernels) == len(self.mixings) == len(self.kappas):
            counts = f"{len(self.mixings)} and {len(self.kappas)}"
            raise ConfigError(f"mixings, kappas: expected one for each of {len(self.kernels)} kernels, got {counts}")

    def gram(self, x1, x2=None):
        return sum(term.gram(x1, x2) for term in self._terms())

    def gram_diagonal(self, x):
        return sum(term.gram_diagonal(x) for term in self._terms())

    def _terms(self):
        return [ICM(*term) for term in zip(self.kernels, self.mixings, self.kappas, strict=True)]


def with_output(x: Float[Array, "n d"], output: Int[Array, "n"] | int) -> Float[Array, "n d+1"]:
    """Returns points for `ICM` and `LMC`: x and one more column, the output, one for all or `[n]`.

    >>> with_output(jnp.array([5.0, 6.0]), 1).tolist()
    [[5.0, 1.0], [6.0, 1.0]]
    """
    return with_index(as_points(x), output)


def with_all_outputs(x: Float[Array, "n d"], num_outputs: int) -> Float[Array, "n*p d+1"]:
    """Returns points for `ICM` and `LMC` where every output is observed, in the order of `y.reshape(-1)`, y `[n, p]`.

    >>> with_all_outputs(jnp.array([5.0, 6.0]), 2).tolist()
    [[5.0, 0.0], [5.0, 1.0], [6.0, 0.0], [6.0, 1.0]]
    """
    x = as_points(x)
    return with_output(jnp.repeat(x, num_outputs, 0), jnp.tile(jnp.arange(num_outputs), len(x)))
