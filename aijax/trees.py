"""Trees of arrays by name: the path of each leaf, its bytes, and ordered rules that give leaves values by path."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from aijax.errors import ConfigError, did_you_mean
from aijax.typing import PyTree


def path_name(path: Sequence[Any]) -> str:
    """Returns a key path of `jax.tree_util` as words joined by slashes, such as `encoder/block_0/kernel`."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns `{path: leaf}` in the order of the leaves.

    >>> named_leaves({"dense": {"bias": 1, "kernel": 2}})
    {'dense/bias': 1, 'dense/kernel': 2}
    """
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Returns the tree of `function(path, leaf, *other_leaves)`."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(path_name(path), *leaves), tree, *rest)


def match_rules(
    rules: Sequence[tuple[str, Any]], tree: PyTree, *, default: Callable[[str, Any], Any] | None, where: str
) -> PyTree:
    """Returns the tree of the values that ordered rules give: for each leaf, the first rule whose pattern matches.

    Args:
      rules: pairs (regular expression, value); an expression matches a whole path (`re.fullmatch`).
      tree: any tree of arrays or shapes.
      default: `default(path, leaf)` for a leaf that no rule matches; None makes such a leaf an error.
      where: the rules' place in the config, for messages.

    Raises:
      ConfigError: a rule is not a pair or not a regular expression, matches nothing, or a leaf is left over.
    """
    compiled = []
    for index, rule in enumerate(rules):
        if not isinstance(rule, (tuple, list)) or len(rule) != 2 or not isinstance(rule[0], str):
            raise ConfigError(f"{where}[{index}]: expected a pair (pattern, value), got {rule!r}")
        try:
            compiled.append((re.compile(rule[0]), rule[1]))
        except re.error as error:
            raise ConfigError(f"{where}[{index}]: {rule[0]!r} is not a regular expression: {error}") from None
    names = list(named_leaves(tree))
    for index, (pattern, _) in enumerate(compiled):
        if not any(pattern.fullmatch(name) for name in names):
            near = did_you_mean(pattern.pattern, names) or f"; they are called like '{names[0]}'"
            raise ConfigError(f"{where}[{index}]: the pattern {pattern.pattern!r} matches no parameter{near}")

    def value_of(name, leaf):
        for pattern, value in compiled:
            if pattern.fullmatch(name):
                return value
        if default is None:
            raise ConfigError(f"{where}: no pattern matches the parameter '{name}'; end the list with ('.*', ...)")
        return default(name, leaf)

    return map_named(value_of, tree)


def count_parameters(tree: PyTree) -> int:
    """Returns the number of array elements in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def count_bytes(tree: PyTree) -> int:
    """Returns the bytes that the arrays (or shapes) of a tree take, each held once."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def split_rows(tree: PyTree, parts: int) -> PyTree:
    """Returns arrays `[b, ...]` cut into equal parts, `[parts, b / parts, ...]`: row `i` goes to part `i % parts`, so
    that on a mesh each part lies on all devices and no row moves.

    Raises:
      ConfigError: rows that the parts do not divide.

    >>> import numpy as np
    >>> split_rows(np.arange(6), 2).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """

    def cut(rows):
        if rows.shape[0] % parts:
            raise ConfigError(f"{rows.shape[0]} examples cannot be cut into {parts} parts")
        return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, tree)


def join_rows(tree: PyTree) -> PyTree:
    """Returns arrays `[parts, b / parts, ...]` as `[b, ...]`: the inverse of `split_rows`.

    >>> import numpy as np
    >>> join_rows(np.array([[0, 2, 4], [1, 3, 5]])).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    return jax.tree.map(lambda rows: rows.swapaxes(0, 1).reshape(-1, *rows.shape[2:]), tree)
