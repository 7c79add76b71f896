"""Activations of a model as a stream for sparse autoencoders: captured as they are needed, mixed, never stored.

Rows of one batch of a model come from the same few texts or images. `mix_rows` holds back a reservoir of r x c rows in
r places: of each place, one row drawn at random is given out and a new one put in its stead, so that the rows of a
batch come from about c batches of the model. Each row is given out once, and a batch costs the reading and writing of
its own rows, however large the reservoir.
"""

from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.interp.capture import capture
from aijax.linalg.vectors import check_count
from aijax.typing import Array, Callable, Float, Params, PRNGKey, PyTree


def site_activations(
    apply_fn: Callable, sites: Sequence[str], *, layers: bool = False
) -> Callable[..., Float[Array, "sites n d"]]:
    """Returns a function of the arguments of `apply_fn` that gives the activations of several sites, a row for each
    example and position.

    Args:
      apply_fn: such as `apply_fn(params, x)`.
      sites: names of values (patterns, as of `capture`); what matches several names, or is made several times, is
        several sites, in the order of their making.
      layers: the values come from a scan over layers: their first axis counts sites.

    Raises, when it is called:
      ConfigError: a pattern that matches nothing, sites of different widths or numbers of rows.

    >>> from aijax.taps import tap
    >>> site_activations(lambda x: tap("b", 2 * tap("a", x)), ["a", "b"])(jnp.ones((2, 3, 4))).shape
    (2, 6, 4)
    """

    def run(*args, **kwargs):
        _, found = capture(apply_fn, sites)(*args, **kwargs)
        rows = {}
        for name, value in found.items():
            for number, one in enumerate(value if isinstance(value, tuple) else (value,)):
                for layer, each in enumerate(one if layers else (one,)):
                    rows[f"{name} {number} {layer}"] = each.reshape(-1, each.shape[-1])
        shapes = {name: leaf.shape for name, leaf in rows.items()}
        if len(set(shapes.values())) > 1:
            raise ConfigError(f"sites: expected activations of one shape [rows, width], got {shapes}")
        return jnp.stack(list(rows.values()))

    return run


def mix_rows(
    key: PRNGKey, reservoir: Float[Array, "... n c d"], fresh: Float[Array, "... n d"]
) -> tuple[Float[Array, "... n c d"], Float[Array, "... n d"]]:
    """Returns the reservoir with fresh rows in it, and the rows that they take the place of.

    Args:
      key: of the choice; all sites are mixed alike, so that inputs and targets of transcoders stay together.
      reservoir: n places of c rows.
      fresh: a row for each place.
    """
    places, depth = reservoir.shape[-3:-1]
    drawn = jax.random.randint(key, (places,), 0, depth)
    rows = jnp.arange(places)
    mixed = reservoir[..., rows, drawn, :]
    return reservoir.at[..., rows, drawn, :].set(fresh), mixed


def stream_activations(
    key: PRNGKey,
    activations: Callable[..., Float[Array, "sites n d"]],
    params: Params,
    batches: Iterable[PyTree],
    *,
    depth: int = 16,
) -> Iterator[Float[Array, "sites n d"]]:
    """Yields mixed activations, one batch of rows for each batch of the model.

    Args:
      key: of the mixing.
      activations: such as `site_activations(apply_fn, sites)`; called with `(params, batch)` and compiled once.
      params: of the model.
      batches: inputs of the model; the first `depth` fill the reservoir.
      depth: c; 1 mixes nothing.

    Raises:
      ConfigError: a depth below 1, or fewer batches.
    """
    check_count("depth", depth)
    run, mix = jax.jit(activations), jax.jit(mix_rows, donate_argnums=1)
    first, reservoir = [], None
    for number, batch in enumerate(batches):
        fresh = run(params, batch)
        if reservoir is not None:
            reservoir, mixed = mix(jax.random.fold_in(key, number), reservoir, fresh)
            yield mixed
            continue
        first.append(fresh)
        if len(first) == depth:
            reservoir, first = jnp.stack(first, axis=-2), []
    if reservoir is None:
        raise ConfigError(f"depth: {depth} batches fill the reservoir, and there are {len(first)}")
