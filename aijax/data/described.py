"""A source as a run folder remembers it: its length, shapes and classes, without the records.

`describe` makes plain data of a source; `Described` is a source made of that, enough to build a model for (what opens a
trained run needs), that refuses to be read.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from aijax.data.source import Source, shape_of
from aijax.errors import DataError


def describe(source: Source) -> dict[str, Any]:
    """Returns the length, the shapes of a record and the classes of a source as plain data."""
    spec = {name: {"shape": list(leaf.shape), "dtype": np.dtype(leaf.dtype).name} for name, leaf in source.spec.items()}
    return {"length": len(source), "spec": spec, "classes": None if source.classes is None else list(source.classes)}


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """A source without records.

    Attributes:
      description: what `describe` gave.
      tokenizer: the tokenizer of a text, or None.
    """

    description: Mapping[str, Any]
    tokenizer: Any = None
    labels: None = None
    read_threads: int = 0

    def __len__(self) -> int:
        return self.description["length"]

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        raise DataError("these records are not at hand: only a description of them is; load the data set to read them")

    @property
    def spec(self) -> dict[str, Any]:
        return {name: shape_of(leaf["shape"], leaf["dtype"]) for name, leaf in self.description["spec"].items()}

    @property
    def classes(self) -> tuple[str, ...] | None:
        classes = self.description["classes"]
        return None if classes is None else tuple(classes)
