"""Dual activations: what an elementwise function does to the covariance of Gaussian pre-activations.

For (u, v) ~ N(0, [[q1, k], [k, q2]]) a function phi has the dual and the derivative dual

    K(q1, k, q2) = E[phi(u) phi(v)],        K'(q1, k, q2) = E[phi'(u) phi'(v)] = dK/dk,

the second equality by Gaussian integration by parts. A layer of infinite width maps the covariance of its
pre-activations by K and multiplies the tangent kernel by K' (Daniely, Frostig and Singer 2016, "Toward deeper
understanding of neural networks", definition 4; Jacot, Gabriel and Hongler 2018, theorem 1). On the diagonal, where
u = v, both depend on the variance q alone.

The duals themselves are in `dual_rectified` (arc-cosine kernels), `dual_smooth` (error functions, waves, Gaussians),
`dual_polynomial` and `dual_numerical` (any other function).
"""

import dataclasses
from collections.abc import Callable

from aijax.typing import Array


@dataclasses.dataclass(frozen=True)
class Dual:
    """An elementwise function and its two duals. All three work on arrays of any shape.

    Attributes:
      fn: x -> phi(x).
      kernel: (q1, k, q2) -> (E[phi(u) phi(v)], E[phi'(u) phi'(v)]), for variances q1, q2 and a covariance k that
        broadcast against each other. |k| beyond sqrt(q1 q2) is taken as rounding of that bound.
      diagonal: q -> (E[phi(u)^2], E[phi'(u)^2]) for the variance q of u; the limit of `kernel` at q1 = k = q2 = q.
    """

    fn: Callable[[Array], Array]
    kernel: Callable[[Array, Array, Array], tuple[Array, Array]]
    diagonal: Callable[[Array], tuple[Array, Array]]
