"""Small files of every format, made on the spot, and the golden arrays."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "vision_text"


@pytest.fixture
def golden():
    """Reads one golden case: `golden("mixup_cutmix/x1")["images"]`."""
    return lambda case: np.load(GOLDEN / case / "data.npz")


@pytest.fixture
def write_idx(tmp_path):
    """Writes an array of bytes as IDX, gzipped where the name ends in .gz; returns the path."""

    def write(name, array, magic=None):
        array = np.asarray(array, np.uint8)
        header = magic if magic is not None else bytes([0, 0, 8, array.ndim])
        content = header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


@pytest.fixture
def encode():
    """Encodes pixels as an image file: `encode(array, "png") -> bytes`."""
    import PIL.Image

    def write(pixels, kind="png"):
        file = io.BytesIO()
        PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(file, kind)
        return file.getvalue()

    return write
