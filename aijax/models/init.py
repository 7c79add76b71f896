"""Initial parameters, at the compile time of one block.

Compiling the init of a deep model costs more than compiling its train step: each parameter of each block draws its own
random numbers. So the blocks are drawn as one scanned block and then unstacked: a looped model and its scanned twin
begin with the same values.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aijax.models.transformer import is_scanned, unstack_blocks
from aijax.typing import Any, Params, PRNGKey


def init(key: PRNGKey, model: nn.Module, *inputs: Any) -> Params:
    """Returns initial parameters of `model`; its forward pass is traced, and when this is compiled it is not run.

    Args:
      key: for drawing the parameters.
      model: any Linen module that has only parameters.
      *inputs: of the model: arrays, or shapes (`jax.ShapeDtypeStruct`).

    >>> from aijax.models import MLP
    >>> shapes = jax.eval_shape(lambda key: init(key, MLP((8,)), jnp.zeros((1, 4))), jax.random.key(0))
    >>> shapes["layer_0"]["kernel"].shape
    (4, 8)
    """
    inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
    scanned = _scanned(model)
    params = scanned.init(key, *inputs)["params"]
    if scanned == model:
        return params
    if scanned == model.clone(**({"scan": True} if hasattr(model, "scan") else {})):  # one stack, and it is looped
        return params if is_scanned(model.depth, model.scan) else unstack_blocks(params)
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs)["params"])
    return _unstack_like(wanted, params)


def _scanned(model):
    """The model with all its stacks of blocks scanned, those of models within it too."""
    fields = type(model).__dataclass_fields__
    within = {name: getattr(model, name) for name in fields if name != "parent"}
    new = {name: _scanned(value) for name, value in within.items() if isinstance(value, nn.Module)}
    return model.clone(**new, **({"scan": True} if "scan" in fields else {}))


def _unstack_like(wanted, params):
    if not isinstance(params, dict):
        return params
    if "blocks" in params and "blocks" not in wanted:
        params = unstack_blocks(params)
    return {name: _unstack_like(wanted[name], child) for name, child in params.items()}
