"""Self-conditioning: a denoiser that is told its own earlier prediction of x_0 (Chen, Zhang and Hinton 2022).

    training    x_0^ = D(x, t, stop(D(x, t, 0))) in a share of the examples, D(x, t, 0) in the rest
    sampling    x_0^_n = D(x_n, t_n, x_0^_(n-1)),  x_0^_(-1) = 0

D is `denoise_fn(x, t, before)`. `self_conditioned` makes of it the `(x, t)` of a loss, `remember` that of `sample`.
Guidance goes inside, so that what is remembered is the guided prediction:

    remember(lambda x, t, before: classifier_free(lambda x, t: D(x, t, before, c), ...)(x, t))
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from aijax.diffusion.predictions import as_partial, to_x0
from aijax.diffusion.process import Process, like_rows
from aijax.errors import ConfigError
from aijax.typing import Any, Array, Callable, PRNGKey


def self_conditioned(
    key: PRNGKey,
    denoise_fn: Callable[[Array, Array, Array], Array],
    rate: float = 0.5,
    *,
    process: Process | None = None,
    prediction: str = "x0",
    sigma_data: float = 0.5,
) -> Callable[[Array, Array], Array]:
    """Returns `(x, t) -> prediction` that tells the denoiser its own first x_0 in a share `rate` of the examples.

    Args:
      key: which examples.
      denoise_fn: `(x, t, before) -> prediction`, `before` an earlier prediction of x_0, or zeros.
      rate: default 0.5.
      process: of x, for a `prediction` other than "x0".
      prediction, sigma_data: what `denoise_fn` predicts, default "x0".

    Raises:
      ConfigError: a rate outside [0, 1]; another prediction than x_0 without a process.

    Source: Chen, Zhang and Hinton 2022, Analog bits, section 3.
    """
    if not 0 <= rate <= 1:
        raise ConfigError(f"rate: expected a number from 0 to 1, got {rate}")
    if prediction != "x0" and process is None:
        raise ConfigError(f"process: needed to tell x_0 from a prediction of {prediction!r}, got None")

    def predict(x, t):
        first = denoise_fn(x, t, jnp.zeros_like(x))
        if prediction != "x0":
            first = to_x0(prediction, first, x, process.alpha(t), process.sigma(t), sigma_data=sigma_data)
        given = jax.random.bernoulli(key, rate, (len(x),))
        return denoise_fn(x, t, jnp.where(like_rows(given, x), jax.lax.stop_gradient(first), 0))

    return predict


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Remembering:
    """A denoiser to which samplers give the x_0 of their last call, after any constraint; without one, zeros."""

    denoise_fn: Any

    def __call__(self, x: Array, t: Array, before: Array | None = None) -> Any:
        """Returns the prediction at x and t."""
        return self.denoise_fn(x, t, jnp.zeros_like(x) if before is None else before)


def remember(denoise_fn: Callable[[Array, Array, Array], Any]) -> Remembering:
    """Returns a denoiser for `sample`, any sampler and any prediction, and `repaint`, that is told its last x_0.

    What needs a function of x and t alone (adaptive samplers, likelihoods) tells it zeros.

    Args:
      denoise_fn: `(x, t, before) -> prediction`.

    >>> from aijax.diffusion import VP, sample
    >>> denoise = remember(lambda x, t, before: before + 1)
    >>> float(sample(jax.random.key(0), denoise, VP(), (1, 1), steps=3)[0, 0])
    3.0
    """
    return Remembering(as_partial(denoise_fn))
