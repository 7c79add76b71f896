"""Gaussian process regression on 100,000 points in 8 dimensions without the kernel matrix; a figure of three panels.

aijax run configs/gp/large.py                   about 16 CPU minutes on two busy cores, float32
aijax run configs/gp/large.py:million           1,000,000 points, for accelerators; not run yet

Parameters are fitted to 2,000 of the points. From 100,000 the error of the function is 0.0905 (0.196 from 2,000, 0.142
from 10,000, 0.113 from 30,000), where its variance is about 1 and the noise 0.5. The negative log predictive density
of 2,000 test targets is 0.724 nats, where the truth's is 0.726 on average; 94.8 % lie within two standard deviations.

The solve for the mean takes 10 iterations to a relative residual of 0.0071, that for 32 functions drawn 10 to 0.0100:
455 CPU seconds for both. The evidence is -75374, with a standard error of 7, and with its gradient takes 397 CPU
seconds. Its largest slope is 5041 nats a factor e of a parameter: the optimum of the few is not that of all, whose
noise is 0.5 and not the 0.474 that was fitted. The process takes 3.0 GiB at its peak.
"""

from ml_collections import ConfigDict


def get_config(size="hundred_thousand"):
    sizes = {
        "hundred_thousand": {"points": 100_000, "solver": {}},
        "million": {"points": 1_000_000, "solver": {"rank": 1000, "block_size": 8192}},
    }
    if size not in sizes:
        raise ValueError(f"expected one of {', '.join(sizes)}, got {size!r}")
    config = ConfigDict()
    config.experiment = "gp_large"
    config.seed = 0
    config.points = sizes[size]["points"]
    config.test_points = 2000
    config.dimension = 8
    config.lengthscales = (2.0, 8.0)
    config.noise_std = 0.5
    config.features = 4096
    config.fit = ConfigDict({"points": 2000, "max_steps": 60})
    config.solver = ConfigDict({"rank": None, "num_probes": 16, "tolerance": 1e-2, "block_size": None})
    config.solver.update(sizes[size]["solver"])
    config.samples = 32
    config.curve = (2000, 10_000, 30_000)
    config.preconditioner = ConfigDict({"points": 10_000, "ranks": (10, 30, 100, 300, 1000)})
    return config
