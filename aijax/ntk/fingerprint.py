"""What tells one kernel computation from another: checksums of its inputs, its parameters and its program.

A program is its jaxpr as text (without addresses in memory) and the arrays that are constants of it, at any depth.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from aijax.ntk.block_programs import inner_constants
from aijax.trees import path_name
from aijax.typing import PyTree

STREAM_BYTES = 1 << 26
"""Inputs are read this much at a time."""


def fingerprint(program: ClosedJaxpr, arguments: Sequence[Any], x1: PyTree, x2: PyTree | None) -> dict[str, str]:
    """Returns the checksums that a store is recognised by: of each input, the arguments, the program and its constants.

    Args:
      program: the kernel's jaxpr.
      arguments: the arrays it is given besides the inputs.
      x1, x2: the inputs, read in stream; x2 may be None.
    """
    text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))
    return {
        "x1": checksum(x1),
        "x2": "x1" if x2 is None else checksum(x2),
        "kernel_args": checksum(list(arguments)),
        "kernel_fn": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        "the arrays inside kernel_fn": checksum([*program.consts, *inner_constants(program.jaxpr)]),
        "jax": jax.__version__,
    }


def checksum(tree: PyTree) -> str:
    """Returns the BLAKE2 checksum of a tree's paths, shapes, types and values, read a part at a time.

    >>> checksum({"a": np.zeros(3)}) == checksum({"a": np.zeros(3)}), checksum(np.zeros(3)) == checksum(np.ones(3))
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(f"{path_name(path)} {tuple(leaf.shape)} {np.dtype(leaf.dtype)};".encode())
        if len(leaf.shape) == 0:
            digest.update(np.asarray(leaf).tobytes())
            continue
        row = max(1, int(np.prod(leaf.shape[1:], dtype=np.int64)) * np.dtype(leaf.dtype).itemsize)
        rows = max(1, STREAM_BYTES // row)
        for start in range(0, leaf.shape[0], rows):
            digest.update(np.ascontiguousarray(leaf[start : start + rows]).view(np.uint8).data)
    return digest.hexdigest()
