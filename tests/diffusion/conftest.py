"""Reference cases by family, and the Gaussian mixtures that are their exact models."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import VE, VP, SubVP
from aijax.diffusion.mixture import GaussianMixture

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "diffusion"


@dataclass(frozen=True)
class Case:
    """One reference case: `case["name"]` is an array of it, `case.close(got, "name")` compares."""

    id: str
    family: str
    params: dict
    arrays: dict
    rtol: float
    atol: float

    def __getitem__(self, name):
        return self.arrays[name]

    def __contains__(self, name):
        return name in self.arrays

    def close(self, got, want):
        want = self.arrays[want] if isinstance(want, str) else want
        got = np.asarray(got)
        if got.dtype == np.float32:
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max(), err_msg=self.id)
        else:
            np.testing.assert_allclose(got, want, rtol=self.rtol, atol=self.atol, err_msg=self.id)

    @property
    def mixture(self):
        return mixture(self.params["gmm"])

    @property
    def process(self):
        p = self.params
        if p["sde"] == "ve":
            return VE(p["sigma_min"], p["sigma_max"])
        return {"vp": VP, "subvp": SubVP}[p["sde"]](p["beta_min"], p["beta_max"])


@functools.cache
def entries():
    return json.loads((FOLDER / "index.json").read_text())["cases"]


@functools.cache
def stored(file):
    with np.load(FOLDER / file) as arrays:
        return dict(arrays)


def mixture(name):
    """The mixture `name`."""
    return GaussianMixture(*(stored("gmms.npz")[f"{name}/{part}"] for part in ("w", "mu", "cov")))


def pytest_configure(config):
    config.addinivalue_line("markers", "golden(*families, where): the argument `case` runs over reference cases")


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    where = marker.kwargs.get("where", lambda entry: True)
    chosen = [entry for entry in entries() if entry["family"] in marker.args and where(entry)]
    assert chosen, f"no reference case for {metafunc.definition.name}"
    metafunc.parametrize("entry", [pytest.param(entry, id=entry["id"]) for entry in chosen])


@pytest.fixture
def case(entry):
    arrays = {name: stored(entry["file"])[f"{entry['id']}/{name}"] for name in entry["arrays"]}
    return Case(entry["id"], entry["family"], entry["params"], arrays, entry["rtol"], entry["atol"])


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def arrays(case, float64):
    """The case's arrays as JAX arrays of float64."""
    return {name: jnp.asarray(value) for name, value in case.arrays.items()}


@pytest.fixture(scope="session")
def g2():
    """The mixture of two-dimensional tests."""
    return mixture("g2")


@pytest.fixture(scope="session")
def follow():
    """`follow(plan, x, denoise, noise=None, restart=None) -> x`: a plan by plain NumPy, for laws that would need many
    programs. `restart` is the number of a call, and the x that it gets in place of its own."""

    def run(plan, x, denoise, noise=None, restart=None):
        anchor, x0s, epss = x, [], []
        for i, (t, alpha, sigma) in enumerate(zip(plan.times, plan.alphas, plan.sigmas, strict=True)):
            z = 0.0 if noise is None else noise(i)
            x, anchor = restart[1:] * 2 if restart and i == restart[0] else (x, anchor)
            if plan.before_scale is not None:
                x = plan.before_scale[i] * x + plan.before_noise[i] * z
            x0 = denoise(x, t, alpha, sigma)
            x0s, epss = [x0, *x0s], [(x - alpha * x0) / sigma, *epss]

            def row(columns, x=x, anchor=anchor, x0s=x0s, epss=epss, i=i, z=z):
                total = 0.0 * x
                for name, value in (("x", x), ("anchor", anchor), ("noise", z)):
                    if getattr(columns, name) is not None:
                        total = total + getattr(columns, name)[i] * value
                for name, values in (("x0", x0s), ("eps", epss)):
                    if getattr(columns, name) is not None:
                        total = total + sum(c * v for c, v in zip(getattr(columns, name)[i], values, strict=False))
                return total

            x, anchor = row(plan.update), anchor if plan.keep is None else row(plan.keep)
        return x

    return run
