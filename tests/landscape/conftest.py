"""Small trained networks with reference curvatures, in float64, with weights `[outputs, inputs]`."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False), "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu, "softplus": jax.nn.softplus,
}  # fmt: skip
LOSSES = {"ce": "cross_entropy", "bce": "binary_cross_entropy", "mse": "squared_error"}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def mean_loss(kind, outputs, y):
    if kind == "ce":
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], 1))
    if kind == "bce":
        return jnp.mean(jax.nn.softplus(outputs) - outputs * y)
    return jnp.mean((outputs - y) ** 2)


def dense(activation, names, params, x):
    layers = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    for layer in layers:
        x = x @ params[f"{layer}.weight"].T + params.get(f"{layer}.bias", 0.0)
        x = x if layer == layers[-1] else activation(x)
    return x


def convolutional(activation, params, x):
    def convolve(x, name):
        y = jax.lax.conv(x, params[f"{name}.weight"], (1, 1), "SAME")
        return activation(y + params[f"{name}.bias"][:, None, None])

    x = convolve(x, "conv1")
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))
    x = convolve(x, "conv2").mean((2, 3))
    return x @ params["fc.weight"].T + params["fc.bias"]


@dataclass(frozen=True)
class Case:
    """Arrays of a case, its network, the name of its loss, its parameters, and `(inputs, targets)`."""

    arrays: dict[str, np.ndarray]
    apply_fn: Any
    loss: str
    params: dict[str, jax.Array]
    batch: tuple

    def loss_fn(self, params, batch):
        kind = next(kind for kind, loss in LOSSES.items() if loss == self.loss)
        return mean_loss(kind, self.apply_fn(params, batch[0]), batch[1])

    def vector(self, flat):
        """A flat vector, or rows of them, as a tree like the parameters."""
        flat = jnp.asarray(flat)
        sizes = np.cumsum([leaf.size for leaf in self.params.values()])[:-1]
        parts = zip(jnp.split(flat, sizes, -1), self.params.items(), strict=True)
        return {name: part.reshape(*flat.shape[:-1], *leaf.shape) for part, (name, leaf) in parts}

    def flat(self, tree):
        """The inverse of `vector`."""
        name = next(iter(self.params))
        axes = jnp.ndim(tree[name]) - self.params[name].ndim
        return np.concatenate([np.reshape(tree[name], (*tree[name].shape[:axes], -1)) for name in self.params], axis=-1)


@pytest.fixture(scope="session")
def read_case(golden):
    """`read_case(name)`: a case whose name tells activation and loss, such as `curv_mlp_gelu_ce`."""

    def read(name, activation=None, loss=None, shapes=None):
        with np.load(golden / "science" / "curvature" / f"{name}.npz") as stored:
            arrays = dict(stored)
        words = name.split("_")
        activation = ACTIVATIONS[activation or next(word for word in words if word in ACTIVATIONS)]
        loss = loss or next(word for word in words if word in LOSSES)
        params = {key[6:]: jnp.asarray(a) for key, a in arrays.items() if key.startswith("param.")}
        if shapes:
            sizes = np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1]
            theta = np.split(arrays[next(key for key in ("theta", "theta0", "thetaA") if key in arrays)], sizes)
            parts = zip(theta, shapes.items(), strict=True)
            params = {key: jnp.asarray(part.reshape(shape)) for part, (key, shape) in parts}
        if "cnn" in name:
            apply_fn = lambda params, x: convolutional(activation, params, x)  # noqa: E731
        else:
            names = list(params)
            apply_fn = lambda params, x: dense(activation, names, params, x)  # noqa: E731
        batch = jnp.asarray(arrays["X"], float), jnp.asarray(arrays["y"])
        return Case(arrays, apply_fn, LOSSES[loss], params, batch)

    return read
