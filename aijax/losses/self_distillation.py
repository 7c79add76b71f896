"""Self-distillation without labels: views of an image should tell the same of it (Caron et al. 2021, arXiv 2104.14294).

    P_t = softmax((t - c) / T_t),    P_s = softmax(s / T_s),    loss = mean over pairs of views of -sum_k P_t log P_s

for outputs t of a teacher and s of a student at two different views. Neither may settle on one answer for all images:
the centre c, an average of the teacher's outputs, keeps one output from ruling, and T_t < T_s keeps all from being
equal (section 3.1 and equation 4).
"""

import jax
import jax.numpy as jnp

from aijax.errors import ConfigError
from aijax.typing import Array, Float


def self_distillation_loss(
    student: Float[Array, "b v k"],
    teacher: Float[Array, "b g k"],
    center: Float[Array, " k"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float | Float[Array, ""] = 0.04,
) -> Float[Array, " b"]:
    """Returns the loss of each image: the mean cross-entropy of the student at a view against the teacher at another.

    Args:
      student: its outputs at all views, the first g of which are those that the teacher has seen, in the same order.
      teacher: its outputs; they have no gradient.
      center: c.
      student_temperature, teacher_temperature: T_s, T_t, above 0.

    Raises:
      ConfigError: fewer than two views of the student, or fewer than the teacher's.

    >>> views = jnp.array([[[4.0, 0.0], [4.0, 0.0]]])
    >>> float(self_distillation_loss(views, views, jnp.zeros(2))[0]) < 1e-6
    True
    """
    views, seen = student.shape[-2], teacher.shape[-2]
    least = max(seen, 2)
    if views < least:
        raise ConfigError(f"student: expected at least {least} views, the teacher's {seen} among them, got {views}")
    targets = teacher_probabilities(teacher, center, teacher_temperature)
    logits = jax.nn.log_softmax(student.astype(targets.dtype) / student_temperature)
    pairs = -jnp.einsum("...gk,...vk->...gv", targets, logits)
    others = ~jnp.eye(seen, views, dtype=bool)
    return jnp.sum(pairs, axis=(-2, -1), where=others) / others.sum()


def teacher_probabilities(
    teacher: Float[Array, "*b k"], center: Float[Array, " k"], temperature: float | Float[Array, ""]
) -> Float[Array, "*b k"]:
    """Returns P_t, in at least 32 bits and without a gradient."""
    wide = jnp.promote_types(teacher.dtype, jnp.float32)
    return jax.lax.stop_gradient(jax.nn.softmax((teacher.astype(wide) - center.astype(wide)) / temperature))
