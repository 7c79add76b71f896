"""Expectations over a pair of Gaussian variables by brute force: panels of Gauss-Legendre, cut at kinks."""

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_BASE = np.arange(-9, 9.01, 1.0)
_NARROW = np.array([-8, -4, -2, -1, 0, 1, 2, 4, 8])


def _panels(breaks):
    breaks = np.unique(np.clip(breaks, -9, 9))
    middle, half = (breaks[1:] + breaks[:-1]) / 2, (breaks[1:] - breaks[:-1]) / 2
    points = (middle[:, None] + half[:, None] * _NODES).ravel()
    return points, (half[:, None] * _WEIGHTS).ravel() * np.exp(-points * points / 2) / math.sqrt(2 * math.pi)


def pair_expectation(fn, q1: float, k: float, q2: float, kinks=()) -> float:
    """E[fn(u) fn(v)] for (u, v) ~ N(0, [[q1, k], [k, q2]]), fn on float64 arrays, smooth but at `kinks`."""
    a, b = math.sqrt(q1), math.sqrt(q2)
    r = k / (a * b)
    r = r if 1 - abs(r) > 1e-14 else math.copysign(1, r)
    s = math.sqrt(1 - r * r)
    breaks = [_BASE, [t / a for t in kinks]]
    if abs(r) > 1e-3:
        breaks += [t / (b * r) + s / abs(r) * _NARROW for t in kinks]
    outer, weights = _panels(np.concatenate([np.asarray(x, float).ravel() for x in breaks]))
    if s == 0:
        return float(weights @ (fn(a * outer) * fn(b * r * outer)))
    inner = [_panels(np.concatenate([_BASE, [(t / b - r * z) / s for t in kinks]])) for z in outer]
    points = np.concatenate([b * (r * z + s * e) for z, (e, _) in zip(outer, inner, strict=True)])
    starts = np.cumsum([0, *(len(e) for e, _ in inner[:-1])])
    means = np.add.reduceat(fn(points) * np.concatenate([w for _, w in inner]), starts)
    return float(weights @ (fn(a * outer) * means))
