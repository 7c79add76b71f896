import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aijax import parallel
from aijax.errors import ConfigError
from aijax.train import init_state, make_step


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, (8, 1, 1)),
        ({"data": 1, "fsdp": -1}, (1, 8, 1)),
        ({"data": -1, "fsdp": 2}, (4, 2, 1)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
    ],
)
def test_a_mesh_takes_every_device(sizes, expected):
    assert tuple(parallel.make_mesh(**sizes).shape.values()) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, "data=3 x fsdp=1 x tensor=1 does not make the 8 devices"),
        ({"data": -1, "fsdp": 3}, "does not make the 8 devices"),
        ({"data": -1, "fsdp": -1}, "data and fsdp are both -1"),
        ({"data": 0}, "config.mesh.data: expected a positive number of devices or -1"),
        ({"fsdp": True}, "config.mesh.fsdp: expected a positive number"),
    ],
)
def test_a_wrong_mesh_is_refused_in_a_sentence(sizes, message):
    with pytest.raises(ConfigError, match=message):
        parallel.make_mesh(**sizes)


def test_the_batch_is_split_over_data_and_fsdp():
    mesh = parallel.make_mesh(2, 2, 2)
    batch = parallel.put_batch(mesh, {"x": np.arange(8.0)})
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2,)}
    assert parallel.process_share(mesh, 8) == (0, 1)
    with pytest.raises(ConfigError, match=r"config.batch_size: 6 examples cannot be split over data x fsdp = 4"):
        parallel.check_batch_size(mesh, 6)


@pytest.mark.parametrize(("sizes", "expected"), [({"data": 8}, True), ({"fsdp": 8}, True), ({"tensor": 8}, False)])
def test_a_program_knows_whether_its_batch_is_split(sizes, expected):
    mesh = parallel.make_mesh(**({"data": 1} | sizes))
    assert jax.eval_shape(parallel.on_mesh(lambda: {"many": 0} if parallel.on_many_devices() else {}, mesh)) == (
        {"many": jax.ShapeDtypeStruct((), jnp.int32, weak_type=True)} if expected else {}
    )
    assert not parallel.on_many_devices()


def test_a_program_knows_whether_it_is_for_one_device():
    def known(mesh):
        found = []
        jax.eval_shape(parallel.on_mesh(lambda: found.append(parallel.on_one_device()), mesh))
        return found[0]

    one = jax.devices()[:1]
    assert known(parallel.make_mesh(devices=one))
    assert not known(parallel.make_mesh())
    assert not known(jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,), devices=one))
    assert not parallel.on_one_device()  # of the eight that there are


def loss_fn(params, batch, key):
    hidden = jnp.tanh(batch["x"] @ params["up"])
    noise = jax.random.normal(key, hidden.shape)
    return jnp.mean(((hidden + 0.1 * noise) @ params["down"] - batch["y"]) ** 2), {}


@pytest.fixture(scope="module")
def losses_on():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"up": jax.random.normal(keys[0], (8, 16)), "down": jax.random.normal(keys[1], (16, 1))}
    batch = {
        "x": np.asarray(jax.random.normal(keys[2], (16, 8))),
        "y": np.asarray(jax.random.normal(keys[3], (16, 1))),
    }
    optimizer = optax.adam(1e-2)
    step = make_step(loss_fn, optimizer)

    def losses(mesh):
        shapes = jax.eval_shape(lambda p: init_state(p, optimizer), params)
        placed = parallel.state_shardings(mesh, shapes, params, parallel.parameter_shardings(mesh, params))
        state = jax.device_put(init_state(params, optimizer), placed)
        compiled = jax.jit(step, out_shardings=(placed, parallel.replicated(mesh)))
        found = []
        for _ in range(5):
            state, metrics = compiled(state, parallel.put_batch(mesh, batch), jax.random.key(7))
            found.append(float(metrics["loss"]))
        return found

    return losses


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (4, 2, 1), (2, 2, 2)])
def test_every_mesh_gives_the_losses_of_one_device(losses_on, sizes):
    alone = losses_on(parallel.make_mesh(devices=jax.devices()[:1]))
    np.testing.assert_allclose(losses_on(parallel.make_mesh(*sizes)), alone, rtol=2e-6)


def test_replicas_in_the_manner_of_pmap_give_the_same_gradient():
    mesh = parallel.make_mesh()
    params, x = jnp.arange(4.0), jax.random.normal(jax.random.key(0), (16, 4))

    def loss(params, x):
        return jnp.mean(jnp.tanh(x @ params))

    def replica(params, x, key):
        assert x.shape == (2, 4)
        noise = jax.random.normal(jax.random.fold_in(key, jax.lax.axis_index("data")), (1,))
        return jax.lax.pmean(jax.grad(loss)(params, x), "data"), x @ params, noise

    run = parallel.per_replica(replica, mesh, in_axes=(None, 0, None), out_axes=(None, 0, 0))
    mean, rows, noise = run(params, x, jax.random.key(1))
    assert len(set(noise.tolist())) == 8
    np.testing.assert_allclose(mean, jax.grad(loss)(params, x), rtol=1e-5)
    np.testing.assert_allclose(rows, x @ params, rtol=1e-5)


def test_replicas_need_a_mesh_of_data_only():
    with pytest.raises(ConfigError, match="every device on the axis 'data'"):
        parallel.per_replica(lambda x: x, parallel.make_mesh(4, 2), in_axes=(0,))
