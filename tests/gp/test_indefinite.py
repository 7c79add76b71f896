"""What is said of matrices without a factor (that it is said: test_exact, test_inference)."""

import jax.numpy as jnp
import pytest

from aijax import gp, kernels
from aijax.errors import DataError
from aijax.gp.indefinite import describe, refuse_indefinite, refuse_indefinite_kernel, refuse_twins


def test_kernels_are_named_with_their_parts():
    kernel = kernels.RBF() * kernels.Periodic() + 2.0 * kernels.Columns(kernels.Linear(), (0,))
    assert describe(kernel) == "Sum(Product(RBF, Periodic), Scaled(Columns(Linear)))"


def test_a_value_that_is_not_finite_is_told_by_its_row():
    with pytest.raises(DataError, match=r"kernel RBF.*not finite in row 1"):
        refuse_indefinite(gp.GP(kernels.RBF()), jnp.eye(3).at[1, 2].set(jnp.nan), jnp.ones(3))


def test_twins():
    x = jnp.array([0.0, 1.0, 0.0])
    with pytest.raises(DataError, match="points 0 and 2"):
        refuse_twins(x, kernels.RBF()(x), jnp.zeros(3))
    refuse_twins(x, kernels.RBF()(x), jnp.array([0.0, 0.0, 0.1]))
    refuse_twins(x, (kernels.RBF() + kernels.White())(x), jnp.zeros(3))
    refuse_twins(["a", "a"], jnp.ones((2, 2)), jnp.zeros(2))


def negative(a, b):
    return -jnp.exp(-jnp.sum((a - b) ** 2))


def test_solvers_that_hold_no_matrix_name_an_indefinite_kernel_too():
    x, solver = jnp.array([0.0, 0.5, 1.0]), gp.SGPR(jnp.array([0.0, 1.0]))
    with pytest.raises(DataError, match=r"kernel FunctionKernel: .* smallest eigenvalue is -2"):
        gp.condition(gp.GP(negative), x, x, solver=solver)


def test_a_fit_names_it_and_a_kernel_that_is_semidefinite_is_not_blamed():
    x = jnp.array([0.0, 0.5, 1.0])
    with pytest.raises(DataError, match=r"kernel FunctionKernel: .* smallest eigenvalue is -2"):
        gp.fit(gp.GP(negative), x, x, max_steps=1)
    refuse_indefinite_kernel(gp.GP(kernels.Linear()), x)
    refuse_indefinite_kernel(gp.GP(kernels.from_kernel_fn(lambda s, t: float(s == t), objects=True)), ["a", "b", "a"])
