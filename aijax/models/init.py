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
    if not hasattr(model, "scan") or is_scanned(model.depth, model.scan):
        return model.init(key, *inputs)["params"]
    return unstack_blocks(model.clone(scan=True).init(key, *inputs)["params"])
