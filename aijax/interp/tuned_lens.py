"""The tuned lens: a logit lens that first translates each depth into the language of the last.

    lens_l(x) = f(x + A_l x + b_l),       KL(softmax f(x_L) | softmax lens_l(x_l))  least over A_l and b_l

with f what comes after the last residual stream (`aijax.interp.lens`) and x_l the stream at depth l. Translators begin
as the identity; they are trained on any texts, by the ordinary train loop, with the model as it is (N. Belrose et al.,
Eliciting latent predictions from transformers with the tuned lens (2023), equations 6 to 8).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from aijax.interp.capture import capture
from aijax.interp.lens import read_stream, stack_streams, stream_shape
from aijax.linalg.vectors import check_count
from aijax.typing import Any, Array, Float, Metrics, Params, PyTree


def init_translators(streams: int, width: int, dtype: Any = jnp.float32) -> Params:
    """Returns translators that change nothing: `matrix` A `[streams, width, width]` and `bias` b `[streams, width]`.

    Raises:
      ConfigError: numbers that are not positive.
    """
    check_count("streams", streams)
    check_count("width", width)
    return {"matrix": jnp.zeros((streams, width, width), dtype), "bias": jnp.zeros((streams, width), dtype)}


def translated(translators: Params, streams: Float[Array, "s ... d"]) -> Float[Array, "s ... d"]:
    """Returns `x + A x + b` of each stream."""

    def one(matrix, bias, stream):
        return stream + stream @ matrix.T + bias

    return jax.vmap(one)(translators["matrix"], translators["bias"], streams)


def tuned_lens(
    apply_fn: Callable[..., PyTree], streams: str | Sequence[str], last: str
) -> Callable[..., dict[str, PyTree]]:
    """Returns `run(translators, *args)`, which gives `{name: output}`, read at each of the streams.

    Args:
      apply_fn: such as `apply_fn(params, tokens)`.
      streams: names of residual streams (patterns, as of `capture`), one translator for each, in the order in which
        they are made; of a scan over layers, one for each layer.
      last: the name of the last stream.

    Raises, when it is called: as `aijax.interp.logit_lens`.
    """

    def run(translators, *args):
        outputs, parts, _ = _read(apply_fn, streams, last, translators, args)
        return parts(outputs)

    return run


def tuned_lens_loss(
    apply_fn: Callable[..., Array], streams: str | Sequence[str], last: str
) -> Callable[..., tuple[Array, Metrics]]:
    """Returns `loss(translators, *args) -> (loss, metrics)`: the mean over streams and positions of the divergence of
    the lens from the model, in nats, and that of each stream.

    Args: as of `tuned_lens`; `apply_fn` gives logits.

    >>> from aijax.taps import tap
    >>> model = lambda x: tap("last", 2 * tap("first", x))
    >>> loss, metrics = tuned_lens_loss(model, ["first", "last"], "last")(init_translators(2, 3), jnp.eye(3))
    >>> sorted(metrics), float(metrics["kl_1"])
    (['kl_0', 'kl_1'], 0.0)
    """

    def loss(translators, *args):
        outputs, _, logits = _read(apply_fn, streams, last, translators, args)
        wanted, told = (
            jax.nn.log_softmax(value.astype(jnp.result_type(value, jnp.float32))) for value in (logits, outputs)
        )
        divergence = jnp.sum(jnp.exp(wanted) * (wanted - told), axis=-1)
        each = jnp.mean(divergence.reshape(len(outputs), -1), axis=1)
        return jnp.mean(each), {f"kl_{number}": each[number] for number in range(len(each))}

    return loss


def _read(apply_fn, streams, last, translators, args):
    logits, values = capture(apply_fn, streams)(*args)
    stacked, parts = stack_streams(values, stream_shape(apply_fn, last, *args))
    moved = translated(translators, jax.lax.stop_gradient(stacked))
    outputs = jax.vmap(lambda stream: read_stream(apply_fn, last)(stream, *args))(moved.astype(stacked.dtype))
    return outputs, parts, jax.lax.stop_gradient(logits)
