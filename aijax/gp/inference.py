"""The verbs of Gaussian process regression, the same for every solver.

    log_marginal_likelihood(gp, x, y)           log p(y)
    posterior = condition(gp, x, y)             p(f | y)
    mean, std = predict(posterior, x_new)       of f at new points
    sample(key, posterior, x_new, num_samples)  functions from it

`solver` says how: `Exact()` by a Cholesky factor; `Iterative(...)`, `StateSpace()`, `SGPR(...)` and the like are nouns
with the same two methods, `evidence` and `condition`.
"""
