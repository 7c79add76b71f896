"""One feature of many tokens: that of the class token, their mean, or what a learned query reads of them.

gap    mean_i x_i
map    y + MLP(Norm(y)),    y = Attention(query; x)        (Lee et al. 2019, pooling by attention; Zhai et al. 2022)
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from aijax.errors import choose
from aijax.models.attention import Attention, Context
from aijax.models.block_spec import LAYERS, BlockSpec, norm
from aijax.models.transformer import Mlp
from aijax.typing import Array, Bool, Float

Pool = Literal["cls", "gap", "cls_gap", "map", "first", "none"]


def pool_tokens(
    pool: Pool, x: Float[Array, "b t d"], spec: BlockSpec, skip: int = 0, mask: Bool[Array, "b t"] | None = None
) -> Float[Array, "b d"]:
    """Returns the pooled feature of tokens, inside a module's compact method; "map" has parameters `map_head`.

    Args:
      pool: "cls" and "first" take the first token, "gap" the mean, "cls_gap" the first and the mean in one vector,
        "map" what a learned query reads, "none" all tokens.
      x: tokens.
      spec: of the blocks before; that of "map" has the same heads, MLP and norm.
      skip: tokens before the patches, which "gap" and "map" pass over.
      mask: which tokens are there.
    """
    rest, seen = x[:, skip:], None if mask is None else mask[:, skip:]
    pools = {
        "cls": lambda: x[:, 0],
        "first": lambda: x[:, 0],
        "gap": lambda: _mean(rest, seen),
        "cls_gap": lambda: jnp.concatenate([x[:, 0], _mean(rest, seen)], axis=-1),
        "map": lambda: MapHead(spec, name="map_head")(rest, seen),
        "none": lambda: x,
    }
    return choose(pools, pool, "pool")()


class MapHead(nn.Module):
    """Pooling by attention: [b, t, d] -> [b, d]; `spec` is that of a block."""

    spec: BlockSpec

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"] | None = None) -> Float[Array, "b d"]:
        old = self.spec
        spec = BlockSpec(
            old.num_heads, old.mlp_ratio, old.norm, old.norm_epsilon, old.activation, biases=LAYERS, dtype=old.dtype,
            param_dtype=old.param_dtype, mlp_width=old.mlp_width,
        )  # fmt: skip
        init = nn.initializers.xavier_uniform()
        probe = self.param("probe", init, (1, x.shape[-1]), jnp.dtype(spec.param_dtype)).astype(x.dtype)
        query = jnp.broadcast_to(probe, (x.shape[0], *probe.shape))
        y = Attention(spec, to_memory=True, name="attention")(query, Context(memory=x, memory_mask=mask))
        return (y + Mlp(spec, name="mlp")(norm(spec, "norm")(y)))[:, 0]


def _mean(x, mask):
    if mask is None:
        return x.mean(axis=1)
    weights = mask[..., None].astype(x.dtype)
    return (x * weights).sum(axis=1) / weights.sum(axis=1)
