"""Products with curvatures: reference values, streaming, devices, blocks of parameters, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from aijax import landscape
from aijax.errors import ConfigError, DataError

QUICK = ("curv_mlp_nobias_tanh_mse", "curv_mlp_gelu_ce", "curv_cnn_tanh_mse")
LONGER = ("curv_mlp_sigmoid_bce", "curv_mlp_silu_ce_deep", "curv_cnn_gelu_ce")


@pytest.fixture(params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER)])
def case(request, read_case):
    return read_case(request.param)


def dense(case, matvec):
    identity = case.vector(jnp.eye(sum(leaf.size for leaf in case.params.values())))
    return case.flat(jax.jit(lambda matvec, rows: jax.lax.map(matvec, rows))(matvec, identity))


def test_matrices_are_those_of_references(case):
    arrays = case.arrays
    assert landscape.mean_loss(case.loss_fn, case.params, case.batch) == pytest.approx(float(arrays["loss"]), rel=1e-10)
    h = dense(case, landscape.hessian(case.loss_fn, case.params, case.batch))
    np.testing.assert_allclose(h @ arrays["V"], arrays["HV"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.diag(h), arrays["diag"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.linalg.eigvalsh(h), arrays["eigvals"], rtol=1e-8, atol=1e-10)
    g = dense(case, landscape.gauss_newton(case.apply_fn, case.loss, case.params, case.batch[0]))
    np.testing.assert_allclose(g @ arrays["V"], arrays["GV"], rtol=1e-8, atol=1e-10)
    assert np.trace(g) == pytest.approx(float(arrays["ggn_trace"]), rel=1e-8)
    f = dense(case, landscape.empirical_fisher(case.loss_fn, case.params, case.batch))
    np.testing.assert_allclose(np.linalg.eigvalsh(f)[:-21:-1], arrays["ef_eigvals_top20"], rtol=1e-8, atol=1e-9)
    assert np.trace(f) == pytest.approx(float(arrays["ef_trace"]), rel=1e-8)


@pytest.fixture
def small(read_case):
    return read_case("curv_mlp_nobias_tanh_mse")


def test_a_data_set_in_batches_is_one_data_set(small):
    x, y = small.batch
    batches = [(x[start : start + 12], y[start : start + 12]) for start in range(0, 40, 12)]  # the last has four
    v = small.vector(small.arrays["V"][:, 0])
    verbs = [
        lambda data: landscape.hessian(small.loss_fn, small.params, data),
        lambda data: landscape.empirical_fisher(small.loss_fn, small.params, data),
        lambda data: landscape.gauss_newton(
            small.apply_fn, small.loss, small.params, [x for x, _ in data] if isinstance(data, list) else data[0]
        ),
    ]
    multiply = jax.jit(lambda matvec, v: matvec(v))
    for verb in verbs:
        parts, whole = (small.flat(multiply(verb(data), v)) for data in (batches, small.batch))
        np.testing.assert_allclose(parts, whole, rtol=1e-8, atol=1e-20)


def test_drawn_targets_estimate_gauss_newton(read_case):
    for name in ("curv_mlp_sigmoid_bce", "curv_mlp_gelu_ce", "curv_mlp_nobias_tanh_mse"):
        case = read_case(name)
        v = case.vector(case.arrays["V"][:, 0])

        def product(key, case=case, v=v):
            return landscape.sampled_fisher(key, case.apply_fn, case.loss, case.params, case.batch[0])(v)

        many = case.flat(jax.jit(jax.vmap(product))(jax.random.split(jax.random.key(0), 4000)))
        error = many.std(0) / len(many) ** 0.5
        assert np.mean(np.abs(many.mean(0) - case.arrays["GV"][:, 0]) <= 3 * error + 1e-12) > 0.98


def test_data_and_parameters_on_eight_devices_give_the_same(small):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    axes = {"net.0.weight": ("model",), "net.2.weight": (None, "model"), "net.4.weight": ()}
    split = {
        name: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*axes[name])))
        for name, leaf in small.params.items()
    }
    data = jax.device_put(small.batch, NamedSharding(mesh, PartitionSpec("data")))
    v = small.vector(small.arrays["V"][:, 0])
    one, eight = (
        jax.jit(lambda matvec, v: matvec(v))(landscape.hessian(small.loss_fn, *given), v)
        for given in ((small.params, small.batch), (split, data))
    )
    np.testing.assert_allclose(small.flat(eight), small.flat(one), rtol=1e-10)
    assert eight["net.0.weight"].sharding.spec == split["net.0.weight"].sharding.spec


def test_a_block_of_parameters_has_a_block_of_the_matrix(small):
    part, whole = landscape.subset(small.params, r"net\.2\..*")
    block = landscape.hessian(lambda part, batch: small.loss_fn(whole(part), batch), part, small.batch)
    v = jnp.asarray(np.random.default_rng(0).normal(size=(6, 12)))
    inside = {name: jnp.zeros_like(leaf) for name, leaf in small.params.items()} | {"net.2.weight": v}
    full = landscape.hessian(small.loss_fn, small.params, small.batch)(inside)
    np.testing.assert_allclose(block({"net.2.weight": v})["net.2.weight"], full["net.2.weight"], rtol=1e-10)


def test_a_large_vocabulary_costs_few_times_its_logits():
    vocabulary, tokens, width = 50_000, 64, 4
    apply_fn = lambda w, x: x @ w  # noqa: E731
    w, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((width, vocabulary), (tokens, width)))
    run = jax.jit(lambda w, x, v: landscape.gauss_newton(apply_fn, "cross_entropy", w, x)(v))
    held = run.lower(w, x, w).compile().memory_analysis().temp_size_in_bytes
    assert held <= 3 * 4 * tokens * vocabulary


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: landscape.hessian(lambda w, x: x * w, 1.0, jnp.ones(3)), ConfigError, "expected a floating scalar"),
        (lambda: landscape.hessian(lambda w, x: jnp.mean(x * w), 1.0, []), ConfigError, "at least one batch"),
        (lambda: landscape.hessian(lambda w, x: w, 1.0, (jnp.ones(3), jnp.ones(2))), DataError, r"batches\[0\]"),
        (lambda: landscape.gauss_newton(jnp.multiply, "hinge", 1.0, jnp.ones(3)), ConfigError, "unknown value 'hinge'"),
        (lambda: landscape.subset({"a": 1.0}, "b"), ConfigError, "'b' matches no parameter"),
    ],
)
def test_what_cannot_be_used_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_loss_without_second_derivative_is_told():
    @jax.custom_vjp
    def square(w):
        return w**2

    square.defvjp(lambda w: (w**2, w), lambda w, slope: (2 * w * slope,))
    slopes = jax.custom_vjp(lambda w: square(w))
    slopes.defvjp(lambda w: (square(w), w), lambda w, slope: (jax.pure_callback(lambda w: 2 * w, w, w) * slope,))
    with pytest.raises(ConfigError, match="loss_fn: it cannot be differentiated twice"):
        landscape.hessian(lambda w, x: slopes(w) * jnp.mean(x), 1.0, jnp.ones(3))
