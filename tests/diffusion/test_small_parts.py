"""Averages of parameters, embeddings of time, distributions of latents, thresholds, the two short forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.diffusion import Clip, DynamicThreshold, ddpm, score_based
from aijax.diffusion.diagonal_gaussian import from_moments, kl_to_standard, negative_log_density
from aijax.diffusion.ema import power_decay, power_exponent, warmed_decay
from aijax.diffusion.embeddings import grid_embedding, sinusoidal_embedding
from aijax.errors import ConfigError

KEY = jax.random.key(0)


@pytest.mark.golden("ema")
def test_the_golden_averages(case):
    p = case.params
    if "sigma_rel" in p:
        case.close([power_exponent(p["sigma_rel"])], "gamma")
        case.close([power_decay(int(step), p["sigma_rel"]) for step in case["step"]], "beta")
        return
    names = {"decay": "most", "min_decay": "least", "use_ema_warmup": "warmup", "update_after_step": "start"}
    options = {names.get(name, name): value for name, value in p.items()}
    case.close([warmed_decay(int(step), **options) for step in case["step"]], "decay")


@pytest.mark.golden("time_embedding")
def test_the_golden_embeddings(case, arrays):
    p = case.params
    if case.id.startswith("pos2d"):
        case.close(grid_embedding(tuple(p["grid"]), p["dim"]).reshape(-1, p["dim"]), "emb")
        return
    found = sinusoidal_embedding(
        arrays["t"], p["dim"], cosine_first=p["flip_sin_to_cos"], shift=p["downscale_freq_shift"],
        max_period=p["max_period"], scale=p["scale"],
    )  # fmt: skip
    case.close(found, "emb")


@pytest.mark.golden("vae")
def test_the_golden_latents(case, arrays):
    found = from_moments(arrays["moments"], axis=1)
    case.close(found.mean, "mean")
    case.close(jnp.exp(found.log_variance / 2), "std")
    case.close(kl_to_standard(found), "kl")
    case.close(negative_log_density(found, arrays["x"]), "nll")


def test_thresholds_bound_each_sample():
    x = jnp.array([[0.5, -0.2], [4.0, 1.0]])
    assert float(jnp.abs(Clip(0.4)(x)).max()) == pytest.approx(0.4)
    np.testing.assert_allclose(DynamicThreshold(1.0, 10.0)(x), [[0.5, -0.2], [1.0, 0.25]])
    for make, message in (
        (lambda: Clip(0.0), "limit: expected a positive number"),
        (lambda: DynamicThreshold(1.5), "quantile: expected a number above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


def test_the_short_forms_train_and_sample():
    x0 = jax.random.normal(KEY, (32, 2))

    def of_variance_exploding(scale):
        return score_based(lambda x, t: -scale * x / (1 + (0.01 * 5000.0 ** jnp.asarray(t)[..., None]) ** 2))

    model = of_variance_exploding(1.0)
    gradient = jax.jit(jax.grad(lambda s: of_variance_exploding(s).loss(KEY, x0)))(1.0)
    assert np.isfinite(gradient)
    x = model.sample(KEY, (512, 2), num_steps=60)
    np.testing.assert_allclose(x.std(0), 1.0, atol=0.25)
    discrete = ddpm(lambda x, t: jnp.zeros_like(x), num_steps=20, beta_start=1e-3, beta_end=0.3)
    np.testing.assert_allclose(discrete.loss(KEY, jnp.zeros((4000, 2))), 1.0, atol=0.05)
    assert discrete.sample(KEY, (3, 2)).shape == discrete.ddim_sample(KEY, (3, 2), steps=5).shape == (3, 2)
