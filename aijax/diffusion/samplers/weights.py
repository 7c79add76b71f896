"""The weights of exponential and Adams integrators: one routine for every multistep sampler.

In lambda = ln(alpha / sigma) the reverse process is a linear equation whose solution over a step h = lambda' - lambda
is

    x' = sigma'/sigma e^(-eta h) x + alpha' int_0^1 H e^(-H (1 - u)) x_0(u) du + sigma' sqrt(1 - e^(-2 eta h)) z
    x' = alpha'/alpha x + (1 + eta) sigma' int_0^1 -h e^(h (1 - u)) eps(u) du + sigma' sqrt(eta (e^(2h) - 1)) z

with H = (1 + eta) h; eta = 0 is the probability-flow ODE (DPM-Solver++, Lu et al. 2022, proposition 4.1; Zhang and Chen
2022). The prediction is replaced by the polynomial through its values at nodes u_j, so that the integral is
sum_j b_j m_j with sum_j b_j u_j^i = mu_i, the moments of the weight function.
"""

import numpy as np


def exponential_moments(rate: float, count: int) -> np.ndarray:
    """Returns mu_i = int_0^1 rate e^(-rate (1 - u)) u^i du for i below `count`.

    mu_0 = 1 - e^-rate and mu_i = 1 - i mu_(i-1) / rate, run downwards where the rate is small.

    >>> exponential_moments(1.0, 2).round(6).tolist()
    [0.632121, 0.367879]
    """
    moments = np.empty(count)
    moments[0] = -np.expm1(-rate)
    if abs(rate) < 1:
        moment = 0.0
        for i in range(24, 0, -1):
            moment = (1 - moment) * rate / i
            if i - 1 < count and i > 1:
                moments[i - 1] = moment
        return moments
    for i in range(1, count):
        moments[i] = 1 - i * moments[i - 1] / rate
    return moments


def interpolation_weights(nodes: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Returns b with sum_j b_j nodes_j^i = moments_i: the integral of the polynomial through values at `nodes`.

    >>> interpolation_weights(np.array([0.0, -1.0]), np.array([1.0, 0.5])).tolist()
    [1.5, -0.5]
    """
    powers = np.vander(nodes, len(moments), increasing=True).T
    return np.linalg.solve(powers, moments)


def adams_weights(nodes: np.ndarray) -> np.ndarray:
    """Returns the weights of int_0^1 of the polynomial through values at `nodes` (0 is now, 1 the end of the step)."""
    return interpolation_weights(nodes, 1 / np.arange(1.0, len(nodes) + 1))
