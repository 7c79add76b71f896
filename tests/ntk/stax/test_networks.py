"""Whole networks: composition, economies of covariance, masks, differentiation, and finite networks by Monte Carlo."""

import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.ntk import kernel_blocks, stax

sys.path.insert(0, str(Path(__file__).parent))

from build import compiled

C, D = stax.Conv, stax.Dense


@pytest.fixture
def double():
    """Float64."""
    with jax.enable_x64(True):
        yield


def images(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


def cnn(readout, *, width=1):
    first, second = C(width, (2, 3), None, "SAME", 1.3, 0.1), C(width, (2, 2), None, "SAME", 1.2)
    return compiled(stax.serial(first, stax.Relu(), second, stax.Relu(), readout))


def same(a, b, **options):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **({"atol": 1e-12} | options)), a, b)


@pytest.mark.parametrize(
    "second", [None, pytest.param(images(3, 4, 3, 2, seed=1), marks=pytest.mark.slow)], ids=["itself", "another"]
)
def test_economies_hold_the_diagonals_of_the_whole(double, second):
    x = images(2, 4, 3, 2)
    flat, whole = cnn(stax.Flatten())[2], cnn(stax.Identity())[2]
    same(flat(x, second), flat(x, second, diagonal_spatial=False))
    full, diagonal = whole(x, second), whole(x, second, diagonal_spatial=True)
    assert not full.diagonal_spatial and full.nngp.shape[2:] == (4, 4, 3, 3)
    same(diagonal.ntk, jnp.einsum("abhhww->abhw", full.ntk))
    same(diagonal.cov1, jnp.einsum("ahhww->ahw", full.cov1))
    batched = whole(x, second, diagonal_batch=False)
    same(batched.cov1, whole(x).nngp)
    same(batched.nngp, full.nngp)
    if second is not None:
        same(batched.cov2, whole(second).nngp)


@pytest.mark.slow
def test_kernels_of_kernels_compose(double):
    x1, x2 = images(2, 4, 3, 2), images(3, 4, 3, 2, seed=1)
    block = stax.serial(C(4, (2, 2)), stax.Relu())
    for readout in (stax.serial(C(4, (2, 2)), stax.GlobalAvgPool(), D(2)), stax.serial(stax.Flatten(), D(2))):
        expected = stax.serial(block, readout)[2](x1, x2)
        same(readout[2](block[2](x1, x2)), expected)
        assert readout[2](block[2](x1, x2), get=("ntk", "shape1")).shape1 == expected.shape1
    with pytest.raises(ConfigError, match="covariances between positions"):
        stax.serial(C(4, (2, 2)), stax.GlobalAvgPool())[2](block[2](x1, x2, diagonal_spatial=True))


def test_get_chooses_what_is_returned():
    x = images(2, 3)
    kernel_fn = D(1, 2.0, 0.5)[2]
    kernel = kernel_fn(x)
    assert isinstance(kernel, stax.Kernel) and kernel.x1_is_x2 is True and kernel.cov2 is None
    pair = kernel_fn(x, None, ("ntk", "cov1"))
    assert pair._fields == ("ntk", "cov1")
    same(pair.ntk, kernel.ntk)
    same(kernel_fn(x, x, "nngp"), kernel.nngp)
    assert kernel_fn(x, x + 1).x1_is_x2.item() is False
    assert kernel_fn(x, x.copy()).x1_is_x2.item() is True
    parts = stax.serial(stax.FanOut(2), stax.parallel(D(1), D(1, 2.0)))[2](x, get="nngp")
    same(parts[1], 4 * parts[0])


def test_parallel_inputs_of_different_shapes(double):
    a, b = images(2, 3), images(2, 4, 5)
    net = stax.serial(stax.parallel(D(8), stax.serial(C(8, (2,)), stax.Flatten(), D(8))), stax.FanInSum(), D(1))
    kernel = net[2]((a, b))
    own = [D(8)[2](a, get="nngp"), stax.serial(C(8, (2,)), stax.Flatten(), D(8))[2](b, get="nngp")]
    same(kernel.nngp, own[0] + own[1])
    shape, params = net[0](jax.random.key(0), (a.shape, b.shape))
    assert net[1](params, (a, b)).shape == shape == kernel.shape1
    with pytest.raises(ConfigError, match="3 inputs for 2 parallel layers"):
        net[2]((a, b, b))


def test_branches_add_multiply_and_stand_side_by_side(double):
    x1, x2 = images(2, 3, 2), images(3, 3, 2, seed=1)
    left, right = stax.serial(D(2, 1.2), stax.Relu(), D(2, 0.7, 0.1)), D(6, 1.1, 0.3)
    k, m = left[2](x1, x2), right[2](x1, x2)

    def fan(layer, *branches):
        return stax.serial(stax.FanOut(2), stax.parallel(*branches), layer)[2](x1, x2)

    same(fan(stax.FanInConcat(-1), left, right).ntk, (2 * k.ntk + 6 * m.ntk) / 8)
    right = D(2, 1.1, 0.3)
    same(fan(stax.FanInSum(), left, right).ntk, k.ntk + m.ntk)
    product = fan(stax.FanInProd(), left, right)
    same((product.nngp, product.ntk), (k.nngp * m.nngp, k.ntk * m.nngp + k.nngp * m.ntk))
    assert not product.is_gaussian
    rows = fan(stax.FanInConcat(1), left, right)
    same(rows.nngp[:, :, :3, :3], k.nngp)
    same(rows.nngp[:, :, 3:, 3:], m.nngp)
    assert not np.any(rows.nngp[:, :, :3, 3:]) and rows.shape1 == (2, 6, 2)
    batches = fan(stax.FanInConcat(0), left, right)
    same(batches.ntk[2:, 3:], m.ntk)
    assert not np.any(batches.ntk[:2, 3:]) and batches.cov1.shape[0] == 4


@pytest.mark.parametrize("n", [0, 1, 3])
def test_repeat_is_serial_of_copies(double, n):
    layer = stax.serial(C(3, (2, 2), None, "SAME", 1.3, 0.1), stax.Relu())
    once, looped = stax.serial(*[layer] * n or [stax.Identity()]), stax.repeat(layer, n)
    x = images(2, 3, 4, 3)
    same(looped[2](x), once[2](x))
    shape, params = looped[0](jax.random.key(1), x.shape)
    unstacked = [jax.tree.map(lambda p, i=i: p[i], params) for i in range(n)] or [()]
    same(looped[1](params, x), once[1](unstacked, x))
    assert shape == x.shape
    same(
        stax.repeat(C(1, (2, 2)), 2)[2](images(2, 4, 4, 2)),
        stax.serial(C(1, (2, 2)), C(1, (2, 2)))[2](images(2, 4, 4, 2)),
    )


def test_requirements_of_layers_compose_associatively():
    every = [stax.Diagonal(*pair) for pair in itertools.product(stax.Bool, repeat=2)]
    for a, b, c in itertools.product(every, repeat=3):
        assert (a >> b) >> c == a >> (b >> c) == c << (b << a)
        assert (a & b) & c == a & (b & c) and a & b == b & a and a & a == a


def test_own_layers():
    @stax.layer
    @stax.supports_masking(remask_kernel=False)
    def Twice():
        @stax.requires(diagonal_spatial=stax.Diagonal(), batch_axis=0)
        def kernel_fn(kernel, **kwargs):
            return kernel * 2

        return lambda key, shape: (shape, ()), lambda params, x, mask=None, **kwargs: 2 * x, kernel_fn

    x = images(2, 3, 4)
    net = stax.serial(D(5), Twice(), stax.Flatten())
    assert Twice()[0].__name__ == "Twice"
    same(net[2](x, get="ntk"), 4 * stax.serial(D(5), stax.Flatten())[2](x, get="ntk"), rtol=1e-5)
    assert net[2](x).shape1 == (2, 15)
    with pytest.raises(ConfigError, match="unknown requirement 'batch'"):
        stax.requires(batch=0)


@pytest.mark.slow
def test_kernels_index_and_permute_as_activations_do(double):
    x1, x2 = images(4, 5, 3, 2), images(4, 5, 3, 2, seed=1)
    of = stax.Identity()[2]
    kernel = of(x1, x2, mask_constant=float(x1[0, 0, 0, 0]))
    for index in [(slice(1, 3),), (slice(None), slice(None, None, 2), 1), (..., slice(0, 2), slice(None))]:
        taken = kernel[index]
        expected = of(x1[index], x2[index], mask_constant=float(x1[0, 0, 0, 0]))
        same(taken, expected.replace(x1_is_x2=taken.x1_is_x2))
    part = kernel.slice(slice(0, 2), slice(1, 4))
    same(part.ntk, kernel.ntk[:2, 1:4])
    assert part.shape2 == (3, 5, 3, 2) and part.cov2.shape[0] == 3
    same(kernel.reverse().nngp, jnp.transpose(kernel.nngp, (0, 1, 4, 5, 2, 3)))
    same((kernel * 3 / 3).nngp, kernel.nngp)
    same(((-kernel) + 2.0).cov1, kernel.cov1 + 4)
    own = of(x1)
    same(own.slice(slice(0, 1), slice(1, 4)).nngp, own.nngp[:1, 1:4])
    assert own.slice(slice(0, 1), slice(1, 4)).cov2.shape[0] == 3
    with pytest.raises(ConfigError, match="batch axis 0 must stay"):
        kernel[0]
    with pytest.raises(ConfigError, match="channel axis 3 is infinite"):
        kernel[..., 0]


@pytest.mark.slow
def test_padding_changes_nothing(double):
    """A padded sequence has the kernels of the shorter one."""
    short, x2 = images(2, 4, 3), images(3, 6, 3, seed=1)
    x1 = np.concatenate([short, np.full((2, 2, 3), 7.0)], 1)
    for readout in (stax.GlobalAvgPool(), stax.GlobalSumPool()):
        net = compiled(stax.serial(C(4, (3,), None, "SAME", 1.3), stax.Relu(), C(4, (1,)), readout, D(1, 1.0, 0.1)))
        masked = net[2](x1, x2, mask_constant=7.0)
        same(masked.cov1, net[2](short).cov1)
        params = net[0](jax.random.key(0), x1.shape)[1]
        same(stax.unmask_fn(net[1])(params, x1, mask_constant=7.0), net[1](params, short))
    nans, layer = np.where(x1 == 7.0, np.nan, x1), D(1, 1.0, 0.1)[2]
    same(layer(nans, x2, mask_constant=np.nan).ntk, layer(x1, x2, mask_constant=7.0).ntk)


@pytest.mark.parametrize("readout", [pytest.param("flatten", marks=pytest.mark.slow), "pool"])
def test_gradients_are_finite_at_equal_and_zero_inputs(double, readout):
    x = images(3, 3, 3, 2)
    x[1], x[2] = x[0], 0
    top = stax.Flatten() if readout == "flatten" else stax.GlobalAvgPool()

    def loss(x1, x2, w_std, b_std):
        net = stax.serial(
            C(1, (2, 2), None, "SAME", w_std), stax.Relu(), C(1, (2, 2), None, "SAME", w_std, b_std), stax.Relu(), top
        )
        return jnp.sum(net[2](x1, x2, "ntk") ** 2)

    grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(x, x.copy(), 1.3, 0.2)
    assert all(np.all(np.isfinite(g)) for g in grads)
    step = 1e-6
    up, down = map(jax.jit(lambda s: loss(x, x.copy(), 1.3 + s, 0.2)), (step, -step))
    np.testing.assert_allclose(grads[2], (up - down) / (2 * step), rtol=1e-6)


def test_kernels_under_jit_and_vmap(double):
    net = cnn(stax.GlobalAvgPool())
    x = images(3, 2, 3, 3, 2)
    expected = [net[2](one, x[0], "ntk") for one in x]
    same(jax.jit(jax.vmap(lambda one: net[2](one, x[0], "ntk")))(x), jnp.stack(expected))
    whole = net[2](x[1], None)
    assert whole.cov2 is None and whole.shape1 == (2, 1)
    small = images(2, 3)
    dense = stax.serial(D(1), stax.Relu(), D(1))[2]
    same(jax.jit(dense)(small), dense(small).replace(x1_is_x2=jnp.array(True)))


def test_kernels_are_positive_and_follow_permutations(double):
    net = cnn(stax.GlobalAvgPool())
    x = images(5, 3, 3, 2)
    ntk = net[2](x, get="ntk")
    order = np.array([3, 1, 4, 0, 2])
    same(net[2](x[order], get="ntk"), ntk[order][:, order])
    assert np.linalg.eigvalsh(ntk).min() > 0
    same(ntk, ntk.T)
    same(ntk, net[2](x, x.copy(), "ntk"), rtol=1e-6)


def shared(width):
    first, second = C(width, (2, 2), None, "SAME", 1.3, 0.1), C(width, (2, 2))
    return first, stax.Relu(), stax.AvgPool((2, 1)), second, stax.GlobalAvgPool()


def unshared(width):
    first, second = stax.ConvLocal(width, (2, 2), None, "VALID", 1.3, 0.1), stax.ConvTranspose(width, (2, 2), (2, 1))
    return first, stax.Abs(), second, stax.Flatten()


@pytest.mark.parametrize("net", [shared, pytest.param(unshared, marks=pytest.mark.slow)])
def test_wide_networks_have_the_infinite_kernels(net):
    width, samples = 256, 24
    init_fn, apply_fn, kernel_fn = stax.serial(*net(width), D(1, 1.2, 0.2))
    x = images(2, 3, 3, 2).astype(np.float32)

    def sample(key):
        params = init_fn(key, x.shape)[1]
        rows = jax.jacrev(lambda p: apply_fn(p, x)[:, 0])(params)
        return sum(jnp.einsum("ap,bp->ab", j.reshape(2, -1), j.reshape(2, -1)) for j in jax.tree.leaves(rows))

    mean = jnp.mean(jax.jit(lambda keys: jax.lax.map(sample, keys))(jax.random.split(jax.random.key(0), samples)), 0)
    expected = jax.jit(lambda x: kernel_fn(x, get="ntk"))(x)
    assert np.linalg.norm(mean - expected) < 0.05 * np.linalg.norm(expected)


def branches(left, right, join):
    return stax.serial(stax.FanOut(2), stax.parallel(left, right), join)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("W_std=-1", lambda x: D(1, -1.0)),
        ("unknown parameterization 'Standard'", lambda x: D(1, parameterization="Standard")),
        ("unknown padding 'same'", lambda x: C(1, (2, 2), padding="same")),
        ("1 strides", lambda x: C(1, (2, 2), (1,))),
        ("do not fit a filter", lambda x: C(1, (2, 2), dimension_numbers=("NHC", "HIO", "NHC"))[2](x)),
        ("expected the axes NHC", lambda x: C(1, (2,))[2](x)),
        ("window of 9 does not fit", lambda x: C(1, (9, 9))[2](x)),
        ("window of 1 axes", lambda x: stax.AvgPool((2,))[2](x)),
        ("needs Gaussian inputs", lambda x: stax.Relu()[2](x)),
        ("channel_axis=3", lambda x: stax.serial(C(1, (2, 2)), stax.GlobalAvgPool(), C(1, (2, 2)))[2](x)),
        ("does not match", lambda x: D(1)[2](x, x[:, :2])),
        ("at least, got shape", lambda x: D(1)[2](x[0, 0, 0])),
        ("did you mean 'nngp'", lambda x: D(1)[2](x, get="nnpg")),
        ("triples", lambda x: stax.serial(D)),
        ("different axes", lambda x: branches(D(1), D(1, channel_axis=1), stax.Identity())[2](x)),
        ("expected equal shapes", lambda x: branches(D(1), D(2), stax.FanInSum())[2](x)),
        ("is_gaussian=", lambda x: branches(D(2), stax.Identity(), stax.FanInSum())[2](x)),
        ("expected no change", lambda x: stax.repeat(D(7), 2)[0](jax.random.key(0), x.shape)),
        ("number of times", lambda x: stax.repeat(D(7), -1)),
        ("number of branches", lambda x: stax.FanOut(0)),
        ("batch_axis_out=2", lambda x: stax.Flatten(batch_axis_out=2)),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_sentence(message, call):
    with pytest.raises(ConfigError) as error:
        call(images(2, 4, 3, 2))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_pooled_network_in_little_memory_is_the_whole_kernel():
    layers = C(1, (3, 3), padding="SAME", W_std=2**0.5), stax.Relu(), stax.GlobalAvgPool(), D(1)
    kernel_fn = stax.serial(*layers)[2]
    x = images(5, 8, 8, 3).astype(np.float32)
    sizes = set()

    def both(x1, x2):
        sizes.add(len(x1))
        return kernel_fn(x1, x2, ("nngp", "ntk"))._asdict()

    found = kernel_blocks(both, x, memory_budget=500_000)
    assert max(sizes - {len(x)}) <= 2 < len(x)
    for name, whole in kernel_fn(x, None, ("nngp", "ntk"))._asdict().items():
        np.testing.assert_allclose(found[name], whole, rtol=2e-6)
