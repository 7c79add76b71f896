"""Neural tangent kernels: of finite networks, of infinitely wide ones, in batch, and what they predict."""
