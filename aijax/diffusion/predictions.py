"""What a network may predict, and one set of conversions between all of it.

With x = alpha x_0 + sigma eps and rho = sigma / alpha:

| kind | predicts | x_0 from it |
|---|---|---|
| "x0" | E[x_0 given x] | itself |
| "eps" | E[eps given x] | (x - sigma eps) / alpha |
| "score" | grad log p(x) = -eps / sigma | (x + sigma^2 score) / alpha |
| "v" | alpha eps - sigma x_0 (Salimans and Ho 2022) | (alpha x - sigma v) / (alpha^2 + sigma^2) |
| "velocity" | eps - x_0 (flow matching) | (x - sigma u) / (alpha + sigma) |
| "F" | (x_0 - c_skip x/alpha) / c_out (EDM) | c_skip x / alpha + c_out F |
| "minus F" | -F, as published EDM schedulers have it of "v_prediction" | c_skip x / alpha - c_out output |

EDM's scalings are c_skip = s^2 / (rho^2 + s^2), c_out = rho s / sqrt(rho^2 + s^2), c_in = 1 / sqrt(rho^2 + s^2),
c_noise = ln(rho) / 4 with s = `sigma_data` (Karras et al. 2022, table 1).
"""

from typing import Literal

import jax
import numpy as np

from aijax.diffusion.process import Process, like_rows, namespace
from aijax.errors import ConfigError, choose
from aijax.typing import Any, Array, Callable

Kind = Literal["x0", "eps", "score", "v", "velocity", "F", "minus F"]


def to_x0(kind: Kind, output: Array, x: Array, alpha: Any, sigma: Any, *, sigma_data: float = 0.5) -> Array:
    """Returns x_0 from what a network predicts at x.

    Args:
      kind: of the prediction; see the module.
      output: the prediction, of the shape of x.
      x: where it was made, `[n, ...]`.
      alpha, sigma: the noise level of x; scalars or `[n]`. For "eps" and "score" alpha must not be 0.
      sigma_data: standard deviation of the data, of kind "F" only.

    Raises:
      ConfigError: an unknown kind.

    >>> import numpy as np
    >>> float(to_x0("eps", np.ones(1), np.full(1, 2.0), 0.5, 1.0)[0])
    2.0
    """
    ratio = _ratio(alpha, sigma) if kind in ("F", "minus F") else None
    alpha, sigma = like_rows(alpha, x), like_rows(sigma, x)
    options = {
        "x0": lambda: output,
        "eps": lambda: (x - sigma * output) / alpha,
        "score": lambda: (x + sigma**2 * output) / alpha,
        "v": lambda: (alpha * x - sigma * output) / (alpha**2 + sigma**2),
        "velocity": lambda: (x - sigma * output) / (alpha + sigma),
        "F": lambda: _from_scaled(output, x / alpha, ratio, sigma_data),
        "minus F": lambda: _from_scaled(-output, x / alpha, ratio, sigma_data),
    }
    return choose(options, kind, "prediction")()


def from_x0(kind: Kind, x0: Array, x: Array, alpha: Any, sigma: Any, *, sigma_data: float = 0.5) -> Array:
    """Returns what a network of `kind` predicts at x where E[x_0 given x] is `x0`: inverse to `to_x0`; sigma > 0."""
    ratio = _ratio(alpha, sigma) if kind in ("F", "minus F") else None
    alpha, sigma = like_rows(alpha, x), like_rows(sigma, x)
    eps = (x - alpha * x0) / sigma
    options = {
        "x0": lambda: x0,
        "eps": lambda: eps,
        "score": lambda: -eps / sigma,
        "v": lambda: alpha * eps - sigma * x0,
        "velocity": lambda: eps - x0,
        "F": lambda: _to_scaled(x0, x / alpha, ratio, sigma_data),
        "minus F": lambda: -_to_scaled(x0, x / alpha, ratio, sigma_data),
    }
    return choose(options, kind, "prediction")()


def to_eps(kind: Kind, output: Array, x: Array, alpha: Any, sigma: Any, *, sigma_data: float = 0.5) -> Array:
    """Returns eps from a prediction of `kind`, without a detour by x_0 that would lose digits; see `to_x0`."""
    if kind == "eps":
        return output
    rows = like_rows(alpha, x), like_rows(sigma, x)
    if kind == "score":
        return -rows[1] * output
    if kind == "v":
        return (rows[1] * x + rows[0] * output) / (rows[0] ** 2 + rows[1] ** 2)
    if kind == "velocity":
        return (x + rows[0] * output) / (rows[0] + rows[1])
    return from_x0("eps", to_x0(kind, output, x, alpha, sigma, sigma_data=sigma_data), x, alpha, sigma)


def convert(
    output: Array, source: Kind, target: Kind, x: Array, alpha: Any, sigma: Any, *, sigma_data: float = 0.5
) -> Array:
    """Returns the prediction `output` of kind `source` as kind `target`; arguments as of `to_x0`."""
    if source == target:
        return output
    if target == "x0":
        return to_x0(source, output, x, alpha, sigma, sigma_data=sigma_data)
    if target in ("eps", "score"):
        eps = to_eps(source, output, x, alpha, sigma, sigma_data=sigma_data)
        return eps if target == "eps" else -eps / like_rows(sigma, x)
    x0 = to_x0(source, output, x, alpha, sigma, sigma_data=sigma_data)
    if target in ("v", "velocity"):
        eps = to_eps(source, output, x, alpha, sigma, sigma_data=sigma_data)
        return eps - x0 if target == "velocity" else like_rows(alpha, x) * eps - like_rows(sigma, x) * x0
    return from_x0(target, x0, x, alpha, sigma, sigma_data=sigma_data)


def as_kind(
    model_fn: Callable[[Array, Any], Array],
    process: Process,
    source: Kind,
    target: Kind,
    *,
    sigma_data: float = 0.5,
) -> Callable[[Array, Any], Array]:
    """Returns `(x, t) -> prediction of kind target` from a function that predicts `source` of the same process.

    >>> from aijax.diffusion import VE
    >>> score_fn = as_kind(lambda x, t: 0.0 * x, VE(), "x0", "score")
    >>> import jax.numpy as jnp
    >>> float(score_fn(jnp.ones((1, 1)), 0.0)[0, 0]).__round__(2)
    -10000.0
    """

    def predict(x, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return convert(model_fn(x, t), source, target, x, alpha, sigma, sigma_data=sigma_data)

    return predict


def edm_scalings(ratio: Any, sigma_data: float = 0.5) -> tuple[Any, Any, Any, Any]:
    """Returns c_skip, c_out, c_in, c_noise of EDM at noise `ratio` (Karras et al. 2022, table 1).

    >>> [round(float(c), 4) for c in edm_scalings(0.5, 0.5)][:2]
    [0.5, 0.3536]
    """
    xp = namespace(ratio)
    total = ratio**2 + sigma_data**2
    root = xp.sqrt(total)
    return sigma_data**2 / total, ratio * sigma_data / root, 1 / root, xp.log(ratio) / 4


def edm_weight(ratio: Any, sigma_data: float = 0.5) -> Any:
    """Returns 1 / c_out^2 = (rho^2 + s^2) / (rho s)^2, which turns the square of an error of x_0 into that of F.

    >>> edm_weight(0.5, 0.5)
    8.0
    """
    return (ratio**2 + sigma_data**2) / (ratio * sigma_data) ** 2


def edm_denoiser(
    network_fn: Callable[[Array, Any], Array], process: Process, *, sigma_data: float = 0.5
) -> Callable[[Array, Any], Array]:
    """Returns `(x, t) -> E[x_0 given x]` from a network `(c_in x/alpha, c_noise) -> F` by EDM's preconditioning."""

    def denoise(x, t):
        ratio = process.ratio(t)
        *_, c_in, c_noise = edm_scalings(ratio, sigma_data)
        y = x / like_rows(process.alpha(t), x)
        return _from_scaled(network_fn(like_rows(c_in, x) * y, c_noise), y, ratio, sigma_data)

    return denoise


def consistency_scalings(ratio: Any, sigma_data: float = 0.5, ratio_min: float = 0.002) -> tuple[Any, Any]:
    """Returns c_skip and c_out of a consistency function, 1 and 0 at `ratio_min` (Song et al. 2023, appendix C)."""
    above = ratio - ratio_min
    total = ratio**2 + sigma_data**2
    return sigma_data**2 / (above**2 + sigma_data**2), sigma_data * above / namespace(ratio).sqrt(total)


def consistency_fn(
    network_fn: Callable[[Array, Any], Array], process: Process, *, sigma_data: float = 0.5, ratio_min: float = 0.002
) -> Callable[[Array, Any], Array]:
    """Returns `f(x, t) = c_skip x/alpha + c_out network(c_in x/alpha, c_noise)`, with f(x, t) = x at `ratio_min`."""

    def consistent(x, t):
        ratio = process.ratio(t)
        c_skip, c_out = consistency_scalings(ratio, sigma_data, ratio_min)
        *_, c_in, c_noise = edm_scalings(ratio, sigma_data)
        y = x / like_rows(process.alpha(t), x)
        return like_rows(c_skip, x) * y + like_rows(c_out, x) * network_fn(like_rows(c_in, x) * y, c_noise)

    return consistent


def as_partial(function: Callable) -> jax.tree_util.Partial:
    """Returns the function as a pytree: itself where it is one, else static."""
    if isinstance(function, jax.tree_util.Partial) or not jax.tree_util.all_leaves([function]):
        return function
    return jax.tree_util.Partial(function)


def check_output(output: Any, x: Array, name: str = "denoise_fn") -> None:
    """Raises `ConfigError` where a prediction is not an array of the shape of x."""
    shape = getattr(output, "shape", None)
    if shape != x.shape:
        got = f"an array of shape {shape}" if shape is not None else type(output).__name__
        raise ConfigError(f"{name}: expected an array of the shape of x, {x.shape}, got {got}")


def _ratio(alpha, sigma):
    if isinstance(alpha, jax.Array) or isinstance(sigma, jax.Array):
        return sigma / alpha
    return np.asarray(sigma, float) / np.asarray(alpha, float)


def _from_scaled(output, y, ratio, sigma_data):
    c_skip, c_out, *_ = edm_scalings(ratio, sigma_data)
    return like_rows(c_skip, y) * y + like_rows(c_out, y) * output


def _to_scaled(x0, y, ratio, sigma_data):
    c_skip, c_out, *_ = edm_scalings(ratio, sigma_data)
    return (x0 - like_rows(c_skip, y) * y) / like_rows(c_out, y)
