"""Gaussian processes: exact, iterative, sparse, with any kernel, as pure functions."""

from aijax.gp.model import GP

__all__ = ["GP"]
