"""Convolutions against XLA's own, whose derivatives are those of `lax.conv_general_dilated`; float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from aijax.errors import ConfigError
from aijax.models.convolution import Conv, convolve

CASES = {
    "same": ((3, 3), 1, 1),
    "stride": ((3, 3), 2, 1),
    "end": ((3, 3), 2, ((0, 1), (0, 1))),
    "oblong": ((2, 5), (1, 3), ((0, 2), (4, 1))),
    "wide padding": ((2, 2), 2, 3),
    "pixel": ((1, 1), 1, 0),
    "every third": ((1, 1), 3, 0),
}


def reference(x, kernel, *, stride, padding):
    stride = (stride, stride) if isinstance(stride, int) else stride
    padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def arrays(size, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(3, 7, 8, 2))), jnp.asarray(rng.normal(size=(*size, 2, 4)))


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_of_any_order(x64, case):
    size, stride, padding = CASES[case]
    (x, kernel), (dx, dk) = arrays(size), arrays(size, 1)

    def all_of(convolution):
        def f(x, kernel):
            return convolution(x, kernel, stride=stride, padding=padding)

        def loss(x, kernel):
            return jnp.sum(jnp.sin(f(x, kernel)))

        gradient = jax.grad(loss, (0, 1))
        return [
            f(x, kernel),
            jax.jvp(f, (x, kernel), (dx, dk))[1],
            gradient(x, kernel),
            jax.jvp(gradient, (x, kernel), (dx, dk))[1],
            jax.grad(lambda x, k: sum(jnp.sum(g**2) for g in gradient(x, k)), (0, 1))(x, kernel),
            jax.grad(lambda x, k: jnp.sum(jax.jvp(f, (x, k), (dx, dk))[1] ** 3), (0, 1))(x, kernel),
        ]

    got, want = (jax.jit(lambda c=c: all_of(c))() for c in (convolve, reference))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), got, want)
