"""Training that begins from parameters that were trained before, such as those of a published folder."""

from collections.abc import Sequence

from aijax.errors import ConfigError
from aijax.trees import map_named, named_leaves
from aijax.typing import Params


def start_from(fresh: Params, trained: Params, *, fresh_names: Sequence[str] = (), where: str = "trained") -> Params:
    """Returns `fresh` with the trained parameters in their places; where nothing was trained it stays as it is.

    Args:
      fresh: parameters of the model that is to be trained.
      trained: parameters by the same names.
      fresh_names: first words of paths that begin anew, such as ("head",).
      where: the field's place in the config, for messages.

    Raises:
      ConfigError: a parameter of the model, other than the fresh ones, that was not trained or has another shape, and
        one that was trained and has no place in the model.

    >>> import numpy as np
    >>> fresh, trained = {"body": np.zeros(2), "head": np.zeros(3)}, {"body": np.ones(2), "head": np.ones(9)}
    >>> start_from(fresh, trained, fresh_names=("head",))
    {'body': array([1., 1.]), 'head': array([0., 0., 0.])}
    """

    def begins_anew(name):
        return name.split("/")[0] in fresh_names

    old, new = ({n: x for n, x in named_leaves(tree).items() if not begins_anew(n)} for tree in (trained, fresh))
    problems = [f"'{name}' was not trained" for name in new if name not in old]
    problems += [f"'{name}' has no place in the model" for name in old if name not in new]
    problems += [
        f"'{name}' has shape {tuple(old[name].shape)}, the model's {tuple(new[name].shape)}"
        for name in new
        if name in old and old[name].shape != new[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError(f"{where}: {'; '.join(problems[:3])}{more}")
    return map_named(lambda name, leaf: leaf if begins_anew(name) else old[name].astype(leaf.dtype), fresh)
