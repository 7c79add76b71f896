"""First derivatives only: an identity that may be differentiated no more.

A derivative rule that holds a solution fixed, as the gradient at a maximum may, is right once; differentiated again it
would leave out that the solution moves. Such a rule passes its inputs through `once`, which says so.
"""

import functools

import jax

from aijax.errors import ConfigError
from aijax.typing import PyTree


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def once(tree: PyTree, solver: str) -> PyTree:
    """Returns the tree.

    Args:
      tree: what a derivative rule was given.
      solver: the name of what has the rule, for the message.

    Raises:
      ConfigError: when it is differentiated.
    """
    return tree


@once.defjvp
def _once_jvp(solver, primals, tangents):
    raise ConfigError(f"{solver}: its gradient has no derivative of its own; second derivatives need Exact or Laplace")
