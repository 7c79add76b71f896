"""aijax: the theory and the practice of deep learning as pure JAX functions that compose."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aijax.launch.open import open_run

__all__ = ["__version__", "open_run"]


def __getattr__(name: str):
    if name == "open_run":
        from aijax.launch.open import open_run

        return open_run
    raise AttributeError(f"module 'aijax' has no attribute {name!r}")
