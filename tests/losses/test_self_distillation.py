import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.errors import ConfigError
from aijax.losses import self_distillation_loss


def reference(student, teacher, center, cold, warm):
    """The loss of one image, pair by pair."""
    found = []
    for g, t in enumerate(teacher):
        p = np.exp((t - center) / cold)
        p /= p.sum()
        for v, s in enumerate(student):
            if v != g:
                found.append(-np.sum(p * (s / warm - np.log(np.sum(np.exp(s / warm))))))
    return np.mean(found)


@pytest.mark.parametrize(("views", "seen"), [(5, 2), (2, 2), (3, 1)])
def test_the_loss_is_the_mean_over_pairs_of_different_views(views, seen):
    draw = np.random.default_rng(0).normal
    student, teacher, center = draw(size=(3, views, 7)), draw(size=(3, seen, 7)), draw(size=7)
    with jax.enable_x64(True):
        found = self_distillation_loss(
            jnp.asarray(student), jnp.asarray(teacher), jnp.asarray(center),
            student_temperature=0.3, teacher_temperature=0.2,
        )  # fmt: skip
    expected = [reference(s, t, center, 0.2, 0.3) for s, t in zip(student, teacher, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_teacher_has_no_gradient_and_no_range_overflows():
    x = 1e3 * jax.random.normal(jax.random.key(0), (2, 3, 5))
    gradients = jax.grad(lambda s, t: self_distillation_loss(s, t, jnp.zeros(5)).sum(), (0, 1))(x, x[:, :2])
    assert np.isfinite(gradients[0]).all()
    assert np.any(gradients[0])
    assert not np.any(gradients[1])


def test_one_view_alone_is_refused():
    with pytest.raises(ConfigError, match="student: expected at least 2 views, the teacher's 1 among them, got 1"):
        self_distillation_loss(jnp.ones((2, 1, 3)), jnp.ones((2, 1, 3)), jnp.zeros(3))
