"""Files that are either the old one or the new one, never half of it."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from aijax.errors import DataError


def write_text(path: str | Path, text: str, *, executable: bool = False) -> None:
    """Writes `text` to `path` through a temporary file beside it that is then renamed.

    Raises:
      DataError: the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, (0o777 if executable else 0o666) & ~mask)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Returns the JSON object in the file `path`.

    Raises:
      DataError: a file that is missing, is not JSON, or holds something else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data
