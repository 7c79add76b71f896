"""Dropout (Srivastava et al. 2014): each activation is kept with chance p, and divided by p, or set to 0.

Two different activations keep their covariance; that of an activation with itself is divided by p, as is the tangent
kernel there (Schoenholz, Gilmer, Ganguli and Sohl-Dickstein 2017, "Deep information propagation", section 5).
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, did_you_mean
from aijax.ntk.stax.kernel import same_entry
from aijax.ntk.stax.layer import Layer, layer
from aijax.ntk.stax.masking import supports_masking
from aijax.ntk.stax.requirements import Bool, Diagonal, requires

MODES = ("train", "test")


@layer
@supports_masking(remask_kernel=True)
def Dropout(rate: float, mode: str = "train") -> Layer:
    """Returns the layer that drops activations in mode "train" and does nothing in mode "test".

    In mode "train" `apply_fn` takes a key as `rng`.

    Args:
      rate: the chance that an activation is KEPT, in (0, 1].
      mode: "train" or "test".

    Raises:
      ConfigError: a rate outside (0, 1], an unknown mode; on a call in mode "train", no `rng`.
    """
    if mode not in MODES:
        raise ConfigError(f"Dropout: unknown mode {mode!r}{did_you_mean(str(mode), MODES)}")
    if isinstance(rate, (int, float)) and not 0 < rate <= 1:
        raise ConfigError(f"Dropout: rate={rate}, expected the chance of keeping an activation, above 0 and at most 1")

    def init_fn(key, input_shape):
        return input_shape, ()

    def apply_fn(params, inputs, *, rng=None, mask=None, **kwargs):
        if mode == "test":
            return inputs
        if rng is None:
            raise ConfigError("Dropout: mode 'train' needs a key, apply_fn(params, inputs, rng=key)")
        return jnp.where(jax.random.bernoulli(rng, rate, inputs.shape), inputs / rate, 0)

    @requires(diagonal_spatial=Diagonal(Bool.YES, Bool.NO))
    def kernel_fn(kernel, **kwargs):
        if mode == "test":
            return kernel
        for name in ("nngp", "ntk", "cov1", "cov2"):
            value = getattr(kernel, name)
            if value is None or not jnp.ndim(value):
                continue
            same = same_entry(kernel, "nngp" if name == "ntk" else name)
            if name in ("nngp", "ntk") and kernel.cov2 is not None:
                same = same & kernel.x1_is_x2
            kernel = kernel.replace(**{name: jnp.where(same, value / rate, value)})
        return kernel

    return init_fn, apply_fn, kernel_fn
