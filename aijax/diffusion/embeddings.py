"""How networks are told the time: see `aijax.models.embeddings`, where the networks find it too."""

from aijax.models.embeddings import grid_embedding, sinusoidal_embedding

__all__ = ["grid_embedding", "sinusoidal_embedding"]
