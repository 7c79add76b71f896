"""What frozen features are worth: the accuracy of simple classifiers on them, on examples that were held out."""

from collections.abc import Sequence

from aijax.errors import choose
from aijax.evaluation.linear_probe import logistic_probe, probe_scores, ridge_probe
from aijax.evaluation.neighbours import nearest_neighbour_votes
from aijax.evaluation.zero_shot import top_k_accuracy
from aijax.typing import Array, Float, Int

PROBES = {"ridge_probe": ridge_probe, "logistic_probe": logistic_probe}
FEATURE_CLASSIFIERS = ("neighbours", *PROBES)


def feature_accuracies(
    names: Sequence[str],
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    held_out: Float[Array, "m d"],
    truth: Int[Array, " m"],
    *,
    num_classes: int,
    l2: float = 1.0,
) -> dict[str, float]:
    """Returns the accuracy on held-out examples of each named classifier of features, as `{name_accuracy: share}`.

    Args:
      names: of `FEATURE_CLASSIFIERS`: "neighbours" (20 nearest, weighed by exp(cosine / 0.07)), "ridge_probe" and
        "logistic_probe".
      features, labels: what they learn from.
      held_out, truth: what they are measured on.
      num_classes: of the labels.
      l2: of the probes.

    Raises:
      ConfigError: an unknown name.

    >>> import jax.numpy as jnp
    >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([0, 1])
    >>> feature_accuracies(("ridge_probe",), x, y, x, y, num_classes=2)
    {'ridge_probe_accuracy': 1.0}
    """
    found = {}
    for name in names:
        choose(dict.fromkeys(FEATURE_CLASSIFIERS), name, "names")
        if name == "neighbours":
            scores = nearest_neighbour_votes(features, labels, held_out, num_classes=num_classes)
        else:
            scores = probe_scores(PROBES[name](features, labels, l2, num_classes=num_classes), held_out)
        found[f"{name}_accuracy"] = float(top_k_accuracy(scores, truth))
    return found
