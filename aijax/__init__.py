"""aijax: the theory and the practice of deep learning as pure JAX functions that compose."""

__version__ = "0.1.0"
