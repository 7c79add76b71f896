"""Predictions against the reference values, dense matrix functions, and each other."""

import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from aijax.errors import ConfigError
from aijax.ntk import predict

LOSSES = {
    "0.5*mean over all entries of (f-y)^2": lambda f, y: 0.5 * jnp.mean((f - y) ** 2),
    "-mean over all entries of y*log_softmax(f, last axis)": lambda f, y: -jnp.mean(y * jax.nn.log_softmax(f)),
}


class Kernels(NamedTuple):
    nngp: object
    ntk: object


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def cases(request):
    folder = request.getfixturevalue("golden") / "ntk"
    index = json.loads((folder / "index.json").read_text())
    entries = index if isinstance(index, list) else index["cases"]
    return [(entry, np.load(folder / entry["file"])) for entry in entries if entry["kind"] == "predict"]


def cases_of(cases, function):
    found = [(entry, arrays) for entry, arrays in cases if entry["fn"] == function]
    assert found
    return found


def tolerance_of(entry, name):
    tolerance = entry["tol"]
    return tolerance[name] if isinstance(tolerance, dict) else tolerance


class Compared:
    """Compares each array once and knows which of a case have been left out."""

    def __init__(self, entry, arrays, tolerance=None):
        inputs = ("x_", "y_", "fx_", "ts", "nngp_dd", "nngp_td", "nngp_tt", "ntk_dd", "ntk_td", "ntk_tt")
        self.entry, self.arrays, self.tolerance = entry, arrays, tolerance
        self.left = {name for name in arrays.files if not name.startswith(inputs)}

    def __call__(self, name, value):
        expected = self.arrays[name]
        error = np.abs(np.asarray(value, float) - expected).max() / np.abs(expected).max() if expected.any() else (
            np.abs(value).max())
        assert error <= (self.tolerance or tolerance_of(self.entry, name)), (self.entry["id"], name, error)
        assert value.shape == expected.shape
        self.left.discard(name)


def as_dtype(arrays, dtype):
    return {name: jnp.asarray(arrays[name], dtype) for name in arrays.files}


def stored_kernel_fn(arrays):
    """A kernel function that knows the training and the test points by their number."""

    def kernel_fn(x1, x2, get):
        letter = {len(arrays["x_train"]): "d", len(arrays["x_test"]): "t"}
        pair = letter[len(x1)] + letter[len(x1 if x2 is None else x2)]
        if isinstance(get, str):
            return arrays[f"{get}_{pair}"]
        return Kernels(arrays[f"nngp_{pair}"], arrays[f"ntk_{pair}"])

    return kernel_fn


def check_mse(entry, arrays, compare):
    for name in ("ntk", "nngp"):
        predict_fn = predict.gradient_descent_mse(
            arrays[f"{name}_dd"],
            arrays["y_train"],
            entry["learning_rate"],
            entry["diag_reg"],
            entry["diag_reg_absolute_scale"],
        )
        outputs = (arrays["fx_train_0"], arrays["fx_test_0"], arrays[f"{name}_td"])
        for i, t in enumerate(arrays["ts"]):
            train, test = predict_fn(t, *outputs)
            compare(f"{name}_train_t{i}", train)
            compare(f"{name}_test_t{i}", test)
        for label, t in (("inf", None), ("jnpinf", jnp.inf)):
            train, test = predict_fn(t, *outputs)
            compare(f"{name}_train_{label}", train)
            compare(f"{name}_test_{label}", test)
        assert (predict_fn(None, *outputs)[0] == arrays["y_train"]).all()


def check_ensemble(entry, arrays, compare):
    predict_fn = predict.gradient_descent_mse_ensemble(
        stored_kernel_fn(arrays),
        arrays["x_train"],
        arrays["y_train"],
        entry["learning_rate"],
        entry["diag_reg"],
        entry["diag_reg_absolute_scale"],
    )
    labels = [f"t{i}" for i in range(len(arrays["ts"]))] + ["inf"]
    for x, prefix in ((arrays["x_test"], ""), (None, "train")):
        for label, t in zip(labels, [*arrays["ts"], None], strict=True):
            result = predict_fn(t, x, ("ntk", "nngp"), compute_cov=True)
            for name in ("nngp", "ntk"):
                if f"{name}_{prefix}mean_{label}" in arrays:
                    compare(f"{name}_{prefix}mean_{label}", getattr(result, name).mean)
                    compare(f"{name}_{prefix}cov_{label}", getattr(result, name).covariance)


def check_gp(entry, arrays, compare):
    predict_fn = predict.gp_inference(
        Kernels(arrays["nngp_dd"], arrays["ntk_dd"]),
        arrays["y_train"],
        entry["diag_reg"],
        entry["diag_reg_absolute_scale"],
    )
    names = ("nngp", "ntk", "ntkgp")
    test = (Kernels(arrays["nngp_td"], arrays["ntk_td"]), Kernels(arrays["nngp_tt"], arrays["ntk_tt"]))
    result = predict_fn(names, *test)
    for name in names:
        compare(f"{name}_mean", getattr(result, name).mean)
        compare(f"{name}_cov", getattr(result, name).covariance)
    assert (predict_fn("ntk", test[0]) == result.ntk.mean).all()


def check_max_learning_rate(entry, arrays, compare):
    for momentum in (0.0, 0.5, 0.9):
        rate = predict.max_learning_rate(arrays["ntk_dd"], entry["y_train_size"], momentum)
        compare(f"lr_m{momentum}", rate)


def check_ode(entry, arrays, compare):
    predict_fn = predict.gradient_descent(
        LOSSES[entry["loss"]], arrays["ntk_dd"], arrays["y_loss"], entry["learning_rate"], entry["momentum"]
    )
    outputs = (arrays["fx_train_0"], arrays["fx_test_0"], arrays["ntk_td"])
    train, test = jax.jit(predict_fn)(arrays["ts"], *outputs)
    for i in range(len(arrays["ts"])):
        compare(f"train_t{i}", train[i])
        compare(f"test_t{i}", test[i])


CHECKS = {
    "gradient_descent_mse": check_mse,
    "gradient_descent_mse_ensemble": check_ensemble,
    "gp_inference": check_gp,
    "max_learning_rate": check_max_learning_rate,
    "gradient_descent": check_ode,
}


@pytest.mark.parametrize("function", CHECKS)
def test_reference_values_in_float64(cases, float64, function):
    for entry, arrays in cases_of(cases, function):
        compare = Compared(entry, arrays)
        CHECKS[function](entry, as_dtype(arrays, jnp.float64), compare)
        assert not compare.left, (entry["id"], compare.left)


@pytest.mark.parametrize("function", CHECKS)
def test_reference_values_in_float32(cases, function):
    for entry, arrays in cases_of(cases, function):
        compare = Compared(entry, arrays, tolerance=1e-4)
        CHECKS[function](entry, as_dtype(arrays, jnp.float32), compare)
