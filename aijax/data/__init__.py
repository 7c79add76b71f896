"""Data: sources of records, the pipeline that makes batches of them, and augmentation of batches on the device."""

from aijax.data.load import load_source
from aijax.data.pipeline import batch_spec, evaluation_batches, stream
from aijax.data.source import ArraySource, Source, checked, select, split

__all__ = [
    "ArraySource", "Source", "batch_spec", "checked", "evaluation_batches", "load_source", "select", "split", "stream",
]  # fmt: skip
