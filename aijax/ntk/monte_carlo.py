"""Monte Carlo estimates of infinite-width kernels: the mean of empirical kernels of randomly initialised networks.

    (1 / n) sum_s Theta_(theta_s)(x1, x2),     theta_s = init(key_s)

is unbiased for the kernel's mean over initialisations at the network's width, and its error falls as 1 / sqrt(n); that
mean tends to the infinite-width kernel as the width grows (Novak et al. 2019, arXiv:1810.05148, section 4, for the
NNGP kernel). It serves where no kernel of the infinite network is known in closed form.
"""

import inspect
import operator
from collections.abc import Iterable, Iterator

import jax

from aijax.errors import ConfigError
from aijax.ntk.arguments import check_function, check_key, whole
from aijax.ntk.batch import batch
from aijax.ntk.empirical_fn import NtkImplementation, empirical_kernel_fn, is_array
from aijax.typing import Any, Callable, PRNGKey, PyTree


def monte_carlo_kernel_fn(
    init_fn: Callable[[PRNGKey, PyTree], tuple[PyTree, PyTree]],
    apply_fn: Callable[..., PyTree],
    key: PRNGKey,
    n_samples: int | Iterable[int],
    batch_size: int = 0,
    device_count: int = -1,
    store_on_device: bool = True,
    trace_axes: int | tuple[int, ...] = (-1,),
    diagonal_axes: int | tuple[int, ...] = (),
    vmap_axes: Any = None,
    implementation: NtkImplementation | int = NtkImplementation.AUTO,
) -> Callable[..., PyTree | Iterator[PyTree]]:
    """Returns `kernel_fn(x1, x2=None, get=None, **apply_fn_kwargs)`, the mean of kernels over initialisations.

    The same key gives the same networks, so that an estimate from more samples contains that from fewer.

    Args:
      init_fn: `init_fn(key, input_shape) -> (output_shape, params)`; the shape is that of x1, or a tree of shapes.
      apply_fn: `apply_fn(params, x, **kwargs)`. Where it takes an argument `rng` it gets a key of its own each sample.
      key: for the initialisations.
      n_samples: how many networks; or several such numbers, and then `kernel_fn` returns an iterator over the estimates
        from so many, in increasing order, one going on from the other.
      batch_size, device_count, store_on_device: as in `batch`.
      trace_axes, diagonal_axes, vmap_axes, implementation: as in `empirical_kernel_fn`.

    Raises:
      ConfigError: a number of samples that is not a positive whole number; as `batch` and `empirical_kernel_fn`.

    >>> init = lambda key, shape: ((shape[0], 1), jax.random.normal(key, (shape[-1], 1)))
    >>> kernel_fn = monte_carlo_kernel_fn(init, lambda w, x: x @ w, jax.random.key(0), [1, 4])
    >>> [estimate.shape for estimate in kernel_fn(jax.numpy.ones((3, 2)), None, "ntk")]
    [(3, 3), (3, 3)]
    """
    several = isinstance(n_samples, Iterable)
    counts = list(n_samples) if several else [n_samples]
    counts = sorted({whole("n_samples", count, 1, "positive whole numbers") for count in counts})
    if not counts:
        raise ConfigError("n_samples: expected a number of samples or several, got none")
    check_function("init_fn", init_fn)
    check_function("apply_fn", apply_fn)
    empirical = empirical_kernel_fn(apply_fn, trace_axes, diagonal_axes, vmap_axes, implementation)
    key = check_key("key", key)
    takes_rng = _takes(apply_fn, "rng")

    def estimates(x1, x2, get, kwargs):
        if not all(map(is_array, jax.tree.leaves(x1))):
            raise ConfigError(f"x1: expected an array or a tree of arrays, got {x1!r}")
        shape = jax.tree.map(lambda leaf: leaf.shape, x1)

        @jax.jit
        def initialise(key):
            made = init_fn(key, shape)
            if not isinstance(made, (tuple, list)) or len(made) != 2:
                raise ConfigError("init_fn: expected a function that returns (output_shape, params)")
            return made[1]

        static = {name: value for name, value in kwargs.items() if not all(map(is_array, jax.tree.leaves(value)))}
        arrays = {name: value for name, value in kwargs.items() if name not in static}

        @jax.jit
        def compiled(x1, x2, params, arrays):
            return empirical(x1, x2, get, params, **arrays, **static)

        def kernel(x1, x2, params, **arrays):
            return compiled(x1, x2, params, arrays)

        batched = batch(kernel, batch_size, device_count, store_on_device)
        total, chain = None, key
        for count in range(1, counts[-1] + 1):
            chain, sample_key = jax.random.split(chain)
            init_key, apply_key = jax.random.split(sample_key)
            own = {"rng": apply_key} if takes_rng else {}
            sample, structure = jax.tree.flatten(batched(x1, x2, initialise(init_key), **own | arrays))
            total = sample if total is None else list(map(operator.add, total, sample))
            if count in counts:
                yield structure.unflatten([leaf / count for leaf in total])

    def kernel_fn(x1, x2=None, get=None, **apply_fn_kwargs):
        found = estimates(x1, x2, get, apply_fn_kwargs)
        return found if several else next(found)

    return kernel_fn


def _takes(function, name):
    """Returns whether a function can be given a keyword argument."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())
