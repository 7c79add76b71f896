import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import losses
from aijax.errors import ConfigError


@pytest.mark.parametrize("name", ["classification_loss/l0", "classification_loss/l1"])
def test_losses_and_gradient_are_the_references(case, name):
    about, arrays = case(name)
    with jax.enable_x64(True):
        logits, labels, soft = (jnp.asarray(arrays[key]) for key in ("logits", "labels", "soft_labels"))

        def smoothed(logits):
            return losses.softmax_cross_entropy(logits, labels, label_smoothing=about["label_smoothing"]).mean()

        value, grad = jax.value_and_grad(smoothed)(logits)
        got = {
            "ce_smooth": value,
            "grad_ce_smooth": grad,
            "soft_ce": losses.softmax_cross_entropy(logits, soft).mean(),
            "sigmoid_ce": losses.sigmoid_cross_entropy(logits, labels).mean(),
            "kl_T2": losses.kl_divergence(soft, logits, temperature=2.0).mean(),
        }
        for key, array in got.items():
            np.testing.assert_allclose(array, arrays[key], rtol=0, atol=1e-12, err_msg=key)


def test_extreme_logits_and_probabilities_of_zero_stay_finite():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    for loss in (losses.softmax_cross_entropy, losses.sigmoid_cross_entropy, lambda z, y: losses.kl_divergence(y, z)):
        value, grad = jax.value_and_grad(lambda z, loss=loss: loss(z, jnp.array([[0.0, 1.0, 0.0]])).sum())(logits)
        assert np.isfinite(value) and np.isfinite(grad).all()


def test_distillation_is_zero_where_the_teacher_is_and_gives_it_no_gradient():
    teacher, student = jax.random.normal(jax.random.key(0), (2, 5, 4))
    for temperature in (0.5, 1.0, 4.0):
        same = losses.distillation_loss(teacher + 3.0, teacher, temperature=temperature)
        np.testing.assert_allclose(same, 0, atol=1e-5)
    grads = jax.grad(lambda z, t: losses.distillation_loss(z, t).sum(), argnums=(0, 1))(student, teacher)
    np.testing.assert_allclose(grads[0], jax.nn.softmax(student) - jax.nn.softmax(teacher), atol=1e-6)
    assert not np.any(grads[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones((2,))), "targets: expected integers"),
        (lambda: losses.softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 4))), r"got float32 \[2, 4\]"),
        (lambda: losses.softmax_cross_entropy(jnp.ones((2, 3)), jnp.zeros(2, int), label_smoothing=1.0), "below 1"),
        (lambda: losses.distillation_loss(jnp.ones((2, 3)), jnp.ones((2, 3)), temperature=0), "temperature: expected"),
        (
            lambda: losses.softmax_cross_entropy(jnp.ones((2, 3)), jnp.array([0, 3])),
            "targets: expected numbers from 0 to 2",
        ),
        (lambda: losses.sigmoid_cross_entropy(jnp.ones((2, 3)), jnp.array([-1, 0])), "targets: .*, got -1"),
    ],
)
def test_wrong_targets_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_class_that_is_none_of_them_gives_nan_where_it_is_known_only_inside_jit():
    found = jax.jit(losses.softmax_cross_entropy)(jnp.zeros((3, 2)), jnp.array([1, 2, -1]))
    assert np.isnan(found).tolist() == [False, True, True]
