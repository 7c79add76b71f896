"""Interpretability: what happens inside of a network, as transformations of pure functions."""

from aijax.interp import progress_measures
from aijax.interp.capture import AtLayer, activation_gradients, capture, intervene, tap_names
from aijax.taps import tap

__all__ = ["AtLayer", "activation_gradients", "capture", "intervene", "progress_measures", "tap", "tap_names"]
