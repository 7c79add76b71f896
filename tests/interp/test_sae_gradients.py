"""Losses of sparse autoencoders and transcoders, and their gradients, against loops in NumPy and differences of these.

What has no gradient (which latents are chosen, the error that dead ones reconstruct, the kernel that stands in for that
of a step) is taken at the weights where the gradient is wanted; the rest is differentiated by central differences.
"""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from aijax.interp import init_sae_state, sae_architecture, sae_step

N, D, M = 7, 5, 9
CASES = [
    ("l1", {"coefficient": 0.3, "power": 0.7}, D),
    ("l1", {"coefficient": 0.3, "weigh_by_decoder": False, "centre": False}, 3),
    ("topk", {"k": 2, "auxiliary_coefficient": 0.4}, D),
    ("topk", {"k": 3, "rescale": False, "centre": False}, 3),
    ("batchtopk", {"k": 2.5, "auxiliary_coefficient": 0.4}, D),
    ("matryoshka", {"k": 2, "widths": (2, 5, M), "auxiliary_by_level": True}, D),
    ("matryoshka", {"k": 2, "widths": (2, 5, M), "rescale": False, "centre": False}, 3),
    ("jumprelu", {"coefficient": 0.2, "bandwidth": 0.9, "dead_coefficient": 0.3}, D),
    ("jumprelu", {"bandwidth": 0.9, "sparsity": "quadratic", "target_l0": 2.0, "to_input": True, "centre": False}, 3),
    ("jumprelu", {"bandwidth": 0.9, "sparsity": "tanh", "tanh_scale": 2.0, "to_input": True}, D),
    ("gated", {"coefficient": 0.3}, D),
]


@pytest.mark.parametrize(("name", "options", "d_out"), CASES)
def test_a_step_has_the_loss_and_the_gradient_of_loops(name, options, d_out):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape)  # noqa: E731
    params = {"encoder": draw(M, D), "decoder": draw(M, d_out), "decoder_bias": draw(d_out)}
    if name == "gated":
        params |= {bias: 0.3 * draw(M) for bias in ("gate_bias", "magnitude_bias", "log_magnitude")}
    else:
        params |= {"encoder_bias": 0.3 * draw(M)}
    if name == "jumprelu":
        params |= {"threshold": rng.uniform(0.1, 1, M)}
    x, dead = draw(N, D), np.arange(M) % 3 == 0
    target = None if d_out == D else draw(N, d_out)
    optimizer = optax.sgd(1e-3)
    with jax.enable_x64(True):
        kind = sae_architecture(name, **options)
        state = init_sae_state(params, optimizer)
        state = dataclasses.replace(state, idle=np.where(dead, 3, 0).astype(np.int32))
        new, metrics = jax.jit(lambda state: sae_step(kind, optimizer, state, x, target, dead_after=3))(state)
    wanted = loss_by_loops(name, kind, params, params, x, target, dead)
    np.testing.assert_allclose(metrics["loss"], wanted, rtol=1e-12)
    for part, value in params.items():
        slope = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = value.copy()
                moved[place] += step
                values.append(loss_by_loops(name, kind, params | {part: moved}, params, x, target, dead))
            slope[place] = (values[0] - values[1]) / 2e-5
        found = (value - np.asarray(new.params[part])) / 1e-3
        np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-7, err_msg=part)


def loss_by_loops(name, kind, p, base, x, target, dead):
    """The loss at the weights p, of which what has no gradient is as at the weights `base`."""
    wanted = x if target is None else target

    def pre_of(p):
        inputs = x - p["decoder_bias"] if kind.centre else x
        if name == "gated":
            return inputs @ p["encoder"].T + p["gate_bias"]
        return inputs @ p["encoder"].T + p["encoder_bias"]

    def error(latents, p, target, bias=True):
        y = np.stack([sum(a * row for a, row in zip(some, p["decoder"], strict=True)) for some in latents])
        return np.mean(np.sum((y + bias * p["decoder_bias"] - target) ** 2, axis=1))

    pre, before, lengths = pre_of(p), pre_of(base), np.linalg.norm(p["decoder"], axis=1)
    if name == "l1":
        latents = np.maximum(pre, 0)
        sizes = latents * lengths if kind.weigh_by_decoder else latents
        return error(latents, p, wanted) + kind.coefficient * np.mean(
            np.sum(sizes**kind.power, axis=1) ** (1 / kind.power)
        )
    if name == "gated":
        inputs, gate = x - p["decoder_bias"], np.maximum(pre, 0)
        sizes = np.maximum(inputs @ (np.exp(p["log_magnitude"])[:, None] * p["encoder"]).T + p["magnitude_bias"], 0)
        penalty = kind.coefficient * np.mean(np.sum(gate * lengths, axis=1))
        return error(np.where(before > 0, sizes, 0), p, wanted) + penalty + error(gate, p, wanted)
    if name == "jumprelu":
        t, t_before = p["threshold"], base["threshold"]
        kernel = (np.abs(before - t_before) < kind.bandwidth / 2) / kind.bandwidth
        moved = kernel * ((pre - before if kind.to_input else 0) - (t - t_before))
        latents, active = np.where(before > t_before, pre, 0) + t_before * moved, (before > t_before) + moved
        sizes = np.tanh(kind.tanh_scale * latents * lengths) if kind.sparsity == "tanh" else active
        number = np.sum(sizes, axis=1)
        if kind.sparsity == "quadratic":
            number = 2 / kind.target_l0 * (number - kind.target_l0) ** 2
        below = np.sum(np.maximum(t - pre, 0) * dead * lengths, axis=1)
        return error(latents, p, wanted) + np.mean(kind.coefficient * number + kind.dead_coefficient * below)

    scores = before * np.linalg.norm(base["decoder"], axis=1) if kind.rescale else before
    if name == "topk":
        chosen = np.stack([row >= np.sort(row)[-kind.k] for row in scores])
    else:
        chosen = scores >= np.sort(np.maximum(scores, 0), axis=None)[-int(kind.k * N)]
    latents = np.where(chosen & (before > 0), pre, 0)
    latents_before = np.where(chosen & (before > 0), before, 0)
    widths = kind.widths if name == "matryoshka" else (M,)
    levels = [np.arange(M) < width for width in widths]
    total = sum(error(np.where(level, latents, 0), p, wanted) for level in levels)
    groups = [(dead, levels[-1])]
    if name == "matryoshka" and kind.auxiliary_by_level:
        groups = [
            (dead & level & ~lower, level)
            for level, lower in zip(levels, [np.zeros(M, bool), *levels[:-1]], strict=True)
        ]
    for some, level in groups:
        most, revived = min(D // 2, some.sum()), np.zeros((N, M))
        left = wanted - np.where(level, latents_before, 0) @ base["decoder"] - base["decoder_bias"]
        for i in range(N):
            for j in sorted(np.flatnonzero(some), key=lambda j: -scores[i, j])[:most]:
                revived[i, j] = pre[i, j]
        total += kind.auxiliary_coefficient * min(some.sum() / (D // 2), 1) * error(revived, p, left, bias=False)
    return total
