r"""The kinds of sparse autoencoders: how latents are chosen, and what is added to the error of reconstruction.

With the input x (less the decoder's bias, where `centre` is set), the rows D_j of the decoder and L the mean over the
batch, all begin with

    h = E x + b,      y = D' a + c,      mse_loss = L |x - y|^2        (summed over the width)

| kind         | latents a                                         | further losses                                   |
|--------------|---------------------------------------------------|--------------------------------------------------|
| `L1`         | relu(h)                                           | coefficient L (sum_j (a_j \|D_j\|)^p)^(1/p)      |
| `TopK`       | relu of the k largest h of each row               | dead latents reconstruct the error               |
| `BatchTopK`  | the k n largest relu(h) of the batch of n rows    | the same                                         |
| `Matryoshka` | as BatchTopK                                      | the same, and the mse_loss of nested prefixes    |
| `JumpReLU`   | h where h > threshold                             | coefficient L (number, its square off a target,  |
|              |                                                   | or tanh, of the active)                          |
| `Gated`      | [g > 0] relu(exp(r) E x + b'), g = E x + b        | coefficient L sum_j relu(g_j) \|D_j\|, and the   |
|              |                                                   | error of reconstruction from relu(g)             |

Sources: T. Bricken et al., Towards monosemanticity (2023); L. Gao et al. (2024), sections 2.3 and A.2; B. Bussmann et
al., BatchTopK (2024) and Matryoshka SAEs (2025); S. Rajamanoharan et al., Gated SAEs (2024), equations 4 to 8, and
JumpReLU SAEs (2024), equations 9 to 12; T. Conerly et al., Dictionary learning optimization techniques (2025), for the
tanh; Gemma Scope 2 (2025) for the square. Where implementations differ, the definitions are those of sae-lens 6.
"""

import dataclasses

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError, choose
from aijax.interp.sae_choice import SAEOutput, centre_of, check_k, from_chosen, scored
from aijax.interp.sae_terms import affine, positive_norm, row_norms, squared_error, zero_with_gradient
from aijax.interp.sparse_codes import dense_codes
from aijax.linalg.vectors import check_count
from aijax.parameters import noun, parameter, static
from aijax.typing import Any, Array, Params


class _Dense:
    """What kinds share whose latents are a full array."""

    @staticmethod
    def extra(latents: int, dtype: Any) -> Params:
        """Returns the weights beside the encoder, the decoder and its bias."""
        return {"encoder_bias": jnp.zeros(latents, dtype)}

    def pre_activations(self, params: Params, x: Array) -> Array:
        return affine(x, centre_of(self, params, x), params["encoder"], params["encoder_bias"])

    def decode(self, params: Params, latents: Array) -> Array:
        return latents @ params["decoder"] + params["decoder_bias"]

    def run(self, params: Params, x: Array) -> SAEOutput:
        """Returns what is made of a batch, without losses."""
        pre = self.pre_activations(params, x)
        return self.output(params, pre, self.latents(params, pre))

    def output(self, params: Params, pre: Array, latents: Array) -> SAEOutput:
        active = latents > 0
        rows = tuple(range(latents.ndim - 1))
        return SAEOutput(
            pre_activations=pre,
            latents=latents,
            reconstruction=self.decode(params, latents),
            fired=jnp.any(active, axis=rows),
            l0=jnp.mean(jnp.sum(active, axis=-1, dtype=latents.dtype)),
            least=jnp.min(jnp.where(active, latents, jnp.inf)),
            losses={},
        )


@noun
class L1(_Dense):
    """Latents relu(h), kept few by a penalty on their size.

    Args:
      coefficient: of the penalty.
      power: p of the norm over latents.
      weigh_by_decoder: multiply each latent by the norm of its row of the decoder, so that the penalty cannot be evaded
        by a longer row; without it, keep the rows at norm 1 (`unit_rows` of `sae_step`).
      centre: take the decoder's bias off the input.
    """

    coefficient: Any = parameter(1.0, "nonnegative")
    power: float = static(1.0)
    weigh_by_decoder: bool = static(True)
    centre: bool = static(True)

    def check(self):
        if not self.power > 0:
            raise ConfigError(f"power: expected a number above 0, got {self.power!r}")

    def latents(self, params, pre):
        return jax.nn.relu(pre)

    def penalties(self, params, x, target, output, dead):
        sizes = output.latents * row_norms(params["decoder"]) if self.weigh_by_decoder else output.latents
        return {"l1_loss": self.coefficient * jnp.mean(positive_norm(sizes, self.power))}


@noun
class TopK:
    """Latents relu(h) at the k largest h of each row, else 0.

    Args:
      k: latents of a row.
      auxiliary_coefficient: of the loss by which dead latents reconstruct the error that the others leave.
      rescale: choose by `h_j |D_j|`, as if the rows of the decoder had norm 1; latents are given in those units.
      centre: take the decoder's bias off the input.
    """

    k: int = static(32)
    auxiliary_coefficient: Any = parameter(1.0, "nonnegative")
    rescale: bool = static(True)
    centre: bool = static(True)

    extra = staticmethod(_Dense.extra)

    def check(self):
        check_count("k", self.k)

    def pre_activations(self, params, x):
        pre = _Dense.pre_activations(self, params, x)
        return pre * row_norms(params["decoder"]) if self.rescale else pre

    def decode(self, params, latents):
        return _rescaled(self, params, latents) @ params["decoder"] + params["decoder_bias"]

    def run(self, params, x):
        check_k(self, params)
        inputs, scores, norms = scored(self, params, x)
        _, indices = jax.lax.top_k(scores, self.k)
        return from_chosen(self, params, x, inputs, norms, indices)

    def penalties(self, params, x, target, output, dead):
        loss = _auxiliary_loss(self, params, x, target, output, dead)
        return {"auxiliary_reconstruction_loss": self.auxiliary_coefficient * loss}


@noun
class BatchTopK(_Dense):
    """Latents relu(h) at the k n largest of the whole batch of n rows, else 0: rows may have more and less than k.

    For use on other rows `as_jump_relu` puts a threshold, found in training, in place of the choice.

    Args:
      k: latents of a row on average; k n is rounded down.
      auxiliary_coefficient, rescale, centre: as of `TopK`.
    """

    k: float = static(32.0)
    auxiliary_coefficient: Any = parameter(1.0, "nonnegative")
    rescale: bool = static(True)
    centre: bool = static(True)

    def check(self):
        if isinstance(self.k, bool) or not isinstance(self.k, int | float) or not self.k > 0:
            raise ConfigError(f"k: expected a number of latents above 0, got {self.k!r}")

    pre_activations = TopK.pre_activations
    decode = TopK.decode
    penalties = TopK.penalties

    def run(self, params, x):
        check_k(self, params)
        inputs, scores, norms = scored(self, params, x)
        count, width = scores.shape
        _, places = jax.lax.top_k(jax.nn.relu(scores).reshape(-1), int(self.k * count))
        columns = -(-len(places) // count)
        # in columns of n entries; those that fill the last belong to no row
        places = jnp.pad(places, (0, columns * count - len(places)), constant_values=count * width).reshape(
            count, columns
        )
        return from_chosen(self, params, x, inputs, norms, places % width, places // width)


@noun
class Matryoshka(BatchTopK):
    """BatchTopK whose first latents, of each of several widths, reconstruct the target by themselves.

    Args:
      widths: ascending numbers of latents, the last of them all.
      k, auxiliary_coefficient, rescale, centre: as of `BatchTopK`.
      auxiliary_by_level: dead latents reconstruct the error of their own level, not of all.
    """

    k: float = static(32.0)
    widths: tuple[int, ...] = static(())
    auxiliary_coefficient: Any = parameter(1.0, "nonnegative")
    auxiliary_by_level: bool = static(False)
    rescale: bool = static(True)
    centre: bool = static(True)

    def check(self):
        BatchTopK.check(self)
        ascending = all(a < b for a, b in zip((0, *self.widths), self.widths, strict=False))
        if not self.widths or not ascending:
            raise ConfigError(f"widths: expected ascending numbers of latents, got {self.widths!r}")

    def penalties(self, params, x, target, output, dead):
        if self.widths[-1] != output.latents.shape[-1]:
            raise ConfigError(
                f"widths: expected the last to be the {output.latents.shape[-1]} latents, got {self.widths[-1]}"
            )
        codes, losses = _rescaled(self, params, output.latents), {}
        partial, partials, start = params["decoder_bias"], [], 0
        for width in self.widths:
            partial = partial + codes[..., start:width] @ params["decoder"][start:width]
            partials.append(partial)
            start = width
        if self.auxiliary_by_level and dead is not None:
            auxiliary, start = 0.0, 0
            for width, partial in zip(self.widths, partials, strict=True):
                level = (jnp.arange(len(dead)) >= start) & (jnp.arange(len(dead)) < width)
                within = dataclasses.replace(output, reconstruction=partial)
                auxiliary += _auxiliary_loss(self, params, x, target, within, dead & level)
                start = width
        else:
            auxiliary = _auxiliary_loss(self, params, x, target, output, dead)
        losses["auxiliary_reconstruction_loss"] = self.auxiliary_coefficient * auxiliary
        for width, partial in zip(self.widths[:-1], partials, strict=False):
            losses[f"inner_mse_loss_{width}"] = squared_error(partial, target)
        return losses


@noun
class JumpReLU(_Dense):
    """Latents h where h > threshold, each with a threshold that is trained; their number is penalised.

    The step has no gradient; within half a bandwidth of the threshold t, that of a uniform kernel stands in for it:

        d a / d t = -t / bandwidth,      d [h > t] / d t = -1 / bandwidth

    Args:
      coefficient: of the penalty.
      bandwidth: of the kernel, in units of h.
      sparsity: "step", the number l of active latents; "quadratic", `2 (l - target_l0)^2 / target_l0`; or "tanh", the
        sum of `tanh(tanh_scale a_j |D_j|)`.
      tanh_scale: of "tanh".
      target_l0: of "quadratic".
      to_input: let the stand-ins, with the other sign, also reach h.
      dead_coefficient: of a penalty `relu(t_j - h_j) |D_j|` on dead latents.
      initial_threshold: of all latents.
      centre: take the decoder's bias off the input.
    """

    coefficient: Any = parameter(1.0, "nonnegative")
    bandwidth: Any = parameter(0.05, "positive")
    sparsity: str = static("step")
    tanh_scale: Any = parameter(4.0, "positive")
    target_l0: Any = parameter(32.0, "positive")
    to_input: bool = static(False)
    dead_coefficient: Any = parameter(0.0, "nonnegative")
    initial_threshold: float = static(0.01)
    centre: bool = static(True)

    def check(self):
        choose(dict.fromkeys(("step", "quadratic", "tanh")), self.sparsity, "sparsity")

    def extra(self, latents, dtype):
        return _Dense.extra(latents, dtype) | {"threshold": jnp.full(latents, self.initial_threshold, dtype)}

    def latents(self, params, pre):
        threshold = params["threshold"]
        return jnp.where(pre > threshold, pre, 0) + jax.lax.stop_gradient(threshold) * self._stand_in(pre, threshold)

    def penalties(self, params, x, target, output, dead):
        threshold, norms = params["threshold"], row_norms(params["decoder"])
        pre = output.pre_activations
        if self.sparsity == "tanh":
            active = jnp.tanh(self.tanh_scale * output.latents * norms)
        else:
            active = (pre > threshold) + self._stand_in(pre, threshold)
        sizes = jnp.sum(active, axis=-1)
        if self.sparsity == "quadratic":
            sizes = 2 * (sizes - self.target_l0) ** 2 / self.target_l0
        losses = {"l0_loss": self.coefficient * jnp.mean(sizes)}
        if dead is not None:
            below = jax.nn.relu(threshold - pre) * dead * norms
            losses["pre_act_loss"] = self.dead_coefficient * jnp.mean(jnp.sum(below, axis=-1))
        return losses

    def _stand_in(self, pre, threshold):
        """Zeros with the gradient of the step at h - t that the kernel gives."""
        near = jnp.abs(pre - threshold) < self.bandwidth / 2
        moved = (zero_with_gradient(pre) if self.to_input else 0) - zero_with_gradient(threshold)
        return jax.lax.stop_gradient(near / self.bandwidth).astype(pre.dtype) * moved


@noun
class Gated(_Dense):
    """Latents whose choice, by the sign of a gate g, is apart from their size; both read the same encoder.

    Args:
      coefficient: of the penalty on relu(g).
      centre: take the decoder's bias off the input.
    """

    coefficient: Any = parameter(1.0, "nonnegative")
    centre: bool = static(True)

    @staticmethod
    def extra(latents, dtype):
        return {name: jnp.zeros(latents, dtype) for name in ("gate_bias", "magnitude_bias", "log_magnitude")}

    def pre_activations(self, params, x):
        encoder = params["encoder"] * jnp.exp(params["log_magnitude"])[:, None]
        return affine(x, centre_of(self, params, x), encoder, params["magnitude_bias"])

    def run(self, params, x):
        pre = self.pre_activations(params, x)
        return self.output(params, pre, jnp.where(self._gate(params, x) > 0, jax.nn.relu(pre), 0))

    def penalties(self, params, x, target, output, dead):
        active = jax.nn.relu(self._gate(params, x))
        sizes = jnp.sum(active * row_norms(params["decoder"]), axis=-1)
        return {
            "l1_loss": self.coefficient * jnp.mean(sizes),
            "auxiliary_reconstruction_loss": squared_error(self.decode(params, active), target),
        }

    def _gate(self, params, x):
        return affine(x, centre_of(self, params, x), params["encoder"], params["gate_bias"])


ARCHITECTURES = {
    "l1": L1, "topk": TopK, "batchtopk": BatchTopK, "jumprelu": JumpReLU, "gated": Gated, "matryoshka": Matryoshka,
}  # fmt: skip
"""The kinds by name."""


def _rescaled(architecture, params, latents):
    if not architecture.rescale:
        return latents
    norms = row_norms(params["decoder"])
    return latents / jnp.where(norms > 0, norms, 1)


def _auxiliary_loss(architecture, params, x, target, output, dead):
    """Returns the error of the k' = d / 2 largest dead latents (all, where fewer are dead) as a reconstruction of what
    the living ones leave, times the share of k' that is dead (Gao et al. 2024, appendix A.2)."""
    if dead is None:
        return jnp.zeros((), output.reconstruction.dtype)
    wanted = max(x.shape[-1] // 2, 1)
    residual = jax.lax.stop_gradient(target - output.reconstruction)

    def loss(pre, params):
        values, indices = jax.lax.top_k(jnp.where(dead, pre, -jnp.inf), min(wanted, len(dead)))
        codes = dense_codes(jnp.where(dead[indices], values, 0), indices, len(dead))
        share = jnp.minimum(jnp.sum(dead) / wanted, 1).astype(codes.dtype)
        return share * squared_error(_rescaled(architecture, params, codes) @ params["decoder"], residual)

    none = jnp.zeros((), output.reconstruction.dtype)
    return jax.lax.cond(jnp.any(dead), loss, lambda pre, params: none, output.pre_activations, params)
