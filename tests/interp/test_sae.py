"""Sparse autoencoders: losses and gradients against sae-lens, the kinds that it has no case for against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError, DataError
from aijax.interp import as_jump_relu, from_sae_lens, init_sae, sae_architecture, sae_decode, sae_encode, sae_loss
from aijax.interp.sae_published import TENSORS

CASES = {  # the options of the reference, and its tolerance
    "standard_l1": ({"architecture": "standard", "l1_coefficient": 0.3}, 1e-8),
    "standard_l1_bdec": ({"architecture": "standard", "l1_coefficient": 0.1, "apply_b_dec_to_input": True}, 1e-8),
    "batchtopk": ({"architecture": "batchtopk", "k": 4, "rescale_acts_by_decoder_norm": False}, 1e-8),
    "gated": ({"architecture": "gated", "l1_coefficient": 0.2}, 1e-8),
    "jumprelu_tanh": (
        {
            "architecture": "jumprelu", "jumprelu_bandwidth": 0.3, "l0_coefficient": 0.2,
            "jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True, "jumprelu_tanh_scale": 4.0,
        },
        1e-6,
    ),
}  # fmt: skip
N, D, M = 6, 4, 10


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_those_of_sae_lens(golden, name):
    options, rtol = CASES[name]
    with np.load(golden / "science" / "interp" / f"sae_{name}.npz") as stored:
        case = dict(stored)
    tensors = {key[2:]: value for key, value in case.items() if key.startswith("w.")}
    config = {"apply_b_dec_to_input": False, "d_in": 12, "d_sae": 30, "normalize_activations": "none"} | options
    with jax.enable_x64(True):
        kind, params = from_sae_lens(config, tensors)
        run = jax.jit(jax.value_and_grad(lambda params, x: sae_loss(kind, params, x), has_aux=True))
        (loss, output), slopes = run(params, case["x"])
    found = {
        "loss": loss,
        "feature_acts": output.latents,
        "hidden_pre": output.pre_activations,
        "sae_out": output.reconstruction,
        **{f"loss.{term}": value for term, value in output.losses.items()},
        **{f"grad.{key}": slopes[ours] for key, ours in TENSORS.items() if ours in slopes},
    }
    found["grad.W_enc"] = found["grad.W_enc"].T  # ours has a row for each latent
    compared = [key for key in case if key in found]
    assert len(compared) >= 9
    for key in compared:
        np.testing.assert_allclose(found[key], case[key], rtol=rtol, atol=1e-12, err_msg=key)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape)  # noqa: E731
    params = {"encoder": draw(M, D), "decoder": draw(M, D), "decoder_bias": draw(D), "encoder_bias": 0.3 * draw(M)}
    return params, draw(N, D), np.arange(M) % 3 == 0


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka"])
def test_chosen_latents_and_losses_are_those_of_loops(problem, name, rescale):
    params, x, dead = problem
    options = {"widths": (3, 7, M), "auxiliary_by_level": True} if name == "matryoshka" else {}
    kind = sae_architecture(name, k=2, rescale=rescale, auxiliary_coefficient=0.5, **options)
    with jax.enable_x64(True):
        loss, output = jax.jit(lambda params, x, dead: sae_loss(kind, params, x, dead=dead))(params, x, dead)

    norms = np.linalg.norm(params["decoder"], axis=1) if rescale else np.ones(M)
    rows = params["decoder"] / norms[:, None]
    pre = ((x - params["decoder_bias"]) @ params["encoder"].T + params["encoder_bias"]) * norms
    wanted = np.zeros((N, M))
    places = [(i, j) for i in range(N) for j in range(M)]
    if name == "topk":
        kept = [(i, j) for i in range(N) for j in np.argsort(-pre[i])[:2]]
    else:
        kept = sorted(places, key=lambda place: -pre[place])[: 2 * N]
    for place in kept:
        wanted[place] = max(pre[place], 0)
    np.testing.assert_allclose(output.latents, wanted, rtol=1e-12)

    def error(latents, target):
        return np.mean(np.sum((latents @ rows - target) ** 2, axis=1))

    def auxiliary(latents, mask):
        most = min(D // 2, mask.sum())
        revived = np.zeros((N, M))
        for i in range(N):
            for j in sorted(np.flatnonzero(mask), key=lambda j: -pre[i, j])[:most]:
                revived[i, j] = pre[i, j]
        return min(mask.sum() / (D // 2), 1) * error(revived, centred - latents @ rows)

    centred = x - params["decoder_bias"]
    total = error(wanted, centred)
    if name == "matryoshka":
        before = 0
        for width in (3, 7, M):
            prefix = wanted * (np.arange(M) < width)
            total += 0.5 * auxiliary(prefix, dead & (np.arange(M) >= before) & (np.arange(M) < width))
            total += error(prefix, centred) if width < M else 0
            before = width
    else:
        total += 0.5 * auxiliary(wanted, dead)
    np.testing.assert_allclose(loss, total, rtol=1e-12)
    np.testing.assert_allclose(sum(map(float, output.losses.values())), 2 * float(loss), rtol=1e-12)


def test_the_sparse_product_has_the_gradient_of_the_dense_one(problem):
    params, x, _ = problem
    kind = sae_architecture("topk", k=3)

    def dense(params, x):
        pre = kind.pre_activations(params, x)
        latents = jax.nn.relu(jnp.where(pre >= jnp.sort(pre, axis=1)[:, -3:-2], pre, 0))
        return jnp.mean(jnp.sum((kind.decode(params, latents) - x) ** 2, axis=1))

    def sparse(params, x):
        return sae_loss(kind, params, x)[0]

    with jax.enable_x64(True):
        pair = jax.jit(lambda *args: (jax.grad(sparse)(*args), jax.grad(dense)(*args)))(params, x)
        for ours, theirs in zip(*map(jax.tree.leaves, pair), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_a_norm_of_another_power_and_rows_of_zeros(problem):
    params, x, _ = problem
    kind = sae_architecture("l1", power=0.5, weigh_by_decoder=False)
    run = jax.jit(jax.grad(lambda params: sae_loss(kind, params, x), has_aux=True))
    for start in (params, jax.tree.map(np.zeros_like, params)):
        slopes, output = run(start)
        wanted = np.mean(np.sum(np.sqrt(output.latents), axis=1) ** 2)
        np.testing.assert_allclose(output.losses["l1_loss"], wanted, rtol=1e-5)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_a_threshold_takes_the_place_of_the_batch(problem):
    params, x, _ = problem
    kind = sae_architecture("batchtopk", k=2)

    @jax.jit
    def both(params, x):
        latents = sae_encode(kind, params, x)
        least = jnp.min(jnp.where(latents > 0, latents, jnp.inf))
        jump, folded = as_jump_relu(kind, params, least * (1 - 1e-5))
        again, one = sae_encode(jump, folded, x), sae_encode(jump, folded, x[0])
        return latents, again, one, sae_decode(kind, params, latents), sae_decode(jump, folded, latents)

    latents, again, one, decoded, decoded_again = both(params, x)
    np.testing.assert_allclose(again, latents, rtol=1e-5)
    np.testing.assert_allclose(one, latents[0], rtol=1e-5)
    np.testing.assert_allclose(decoded, decoded_again, rtol=1e-4, atol=1e-5)


def test_a_transcoder_and_autoencoders_side_by_side():
    kind = sae_architecture("topk", k=2, centre=False)
    x, target = jnp.ones((N, D)), jnp.ones((N, 3))

    @jax.jit
    def run(keys):
        many = jax.vmap(lambda key: init_sae(key, kind, D, M, d_out=3))(keys)
        one = jax.tree.map(lambda leaf: leaf[1], many)
        together = jax.vmap(lambda params: sae_loss(kind, params, x, target)[0])(many)
        coefficients = jnp.array([0.0, 1.0])
        swept = jax.vmap(lambda c: sae_loss(sae_architecture("l1", coefficient=c, centre=False), one, x, target)[1])(
            coefficients
        )
        return one, sae_loss(kind, one, x, target), together, swept.losses["l1_loss"]

    one, (loss, output), together, swept = run(jax.random.split(jax.random.key(1), 3))
    assert output.reconstruction.shape == (N, 3) and loss.shape == ()
    np.testing.assert_allclose(together[1], loss, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(one["decoder"], axis=1), 0.1, rtol=1e-5)
    assert swept[0] == 0 and swept[1] > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sae_architecture("top_k"), "architecture: unknown value 'top_k'; did you mean 'topk'"),
        (lambda: sae_architecture("topk", K=3), "architecture.K: unknown field; did you mean 'k'"),
        (lambda: sae_architecture("topk", k=0), "k: expected a whole number of at least 1, got 0"),
        (lambda: sae_architecture("l1", coefficient=-1.0), "coefficient: expected a number of at least 0, got -1"),
        (lambda: sae_architecture("jumprelu", sparsity="tahn"), "sparsity: unknown value 'tahn'; did you mean 'tanh'"),
        (lambda: sae_architecture("matryoshka", widths=(4, 4)), r"widths: expected ascending numbers of latents"),
        (lambda: init_sae(jax.random.key(0), sae_architecture("topk", k=11), D, M), "at most the 10 latents, got 11"),
        (lambda: run("topk", {"k": 2}, width=D + 1), r"x: expected activations of width 4, .* got \(6, 5\)"),
        (lambda: run("topk", {"k": M + 1}), "k: expected at most the 10 latents, got 11"),
        (lambda: run("matryoshka", {"k": 2, "widths": (3, 9)}), "widths: expected the last to be the 10 latents"),
        (lambda: run("l1", {}, dead=np.ones(D, bool)), r"dead: expected a mask of the latents, \(10,\), got \(4,\)"),
        (lambda: from_sae_lens({"architecture": "top_k"}, {}), "config.architecture: unknown value 'top_k'"),
        (lambda: from_sae_lens({"architecture": "topk", "l1_coefficient": 1.0}, {}), "config.l1_coefficient: unknown"),
        (lambda: from_sae_lens({"architecture": "topk", "normalize_activations": "layer_norm"}, {}), "not offered"),
        (lambda: run("l1", {}, target=np.ones((N, D))), "centre: expected False for a transcoder"),
        (lambda: run("l1", {"centre": False}, target=np.ones((N, 3))), r"target: expected \(6, 4\)"),
    ],
)
def test_mistakes_are_told_in_a_sentence(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_tensors_that_are_missing_or_misshapen_are_told():
    config = {"architecture": "matryoshka_batchtopk", "matryoshka_widths": [3], "d_sae": M}
    tensors = {"W_enc": np.ones((D, M)), "W_dec": np.ones((M, D)), "b_dec": np.ones(D), "b_enc": np.ones(M)}
    kind, params = from_sae_lens(config, tensors)
    assert kind.widths == (3, M) and params["encoder"].shape == (M, D)
    with pytest.raises(DataError, match=r"expected the tensors W_enc, W_dec, b_dec, b_enc, got W_enc, W_dec, b_dec$"):
        from_sae_lens(config, {name: tensor for name, tensor in tensors.items() if name != "b_enc"})
    with pytest.raises(DataError, match="unknown tensor 'W_encoder'; did you mean 'W_enc'"):
        from_sae_lens(config, tensors | {"W_encoder": 0})
    with pytest.raises(DataError, match=r"expected W_enc \[d, m\]"):
        from_sae_lens(config, tensors | {"W_enc": np.ones((M, D))})


def run(name, options, width=D, target=None, dead=None):
    params = {"encoder": np.ones((M, D)), "decoder": np.ones((M, D)), "decoder_bias": np.ones(D)}
    params["encoder_bias"] = np.ones(M)
    return sae_loss(sae_architecture(name, **options), params, np.ones((N, width)), target, dead=dead)
