"""Files of data: found, or missed with a sentence that says what to get and where to put it."""

import gzip
import zlib
from pathlib import Path

from aijax.errors import DataError, did_you_mean


def existing(path: str, field: str, hint: str = "", *, folder: bool = False) -> Path:
    """Returns `path` with `~` expanded, checked to be a file (or a folder).

    Args:
      path: as the config gives it, relative to the working directory.
      field: the config field that gives it, for messages.
      hint: a clause that says what is expected there and where it comes from.
      folder: whether a folder is expected.

    Raises:
      DataError: nothing there; the sentence has the hint, or else the nearest name in the same folder.
    """
    found = Path(path).expanduser()
    if found.is_dir() if folder else found.is_file():
        return found
    kind, other = ("folder", "file") if folder else ("file", "folder")
    if found.exists():
        raise DataError(f"{field}: {path!r} is a {other}, expected a {kind}" + (f"; {hint}" if hint else ""))
    parent = found.resolve().parent
    neighbours = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    advice = f"; {hint}" if hint else did_you_mean(found.name, neighbours)
    raise DataError(f"{field}: there is no {kind} {path!r} (looked in {parent}){advice}")


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file, decompressed where it is gzip.

    Raises:
      DataError: a gzip file that is cut short or damaged.
    """
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file after {len(content)} bytes: {error}") from error
