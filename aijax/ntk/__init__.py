"""Neural tangent kernels: of finite networks, of infinitely wide ones, in batch, and what they predict.

- `empirical_ntk`, `empirical_nngp`: kernels of any function of parameters; `kernel_vector_product` and the spectra:
  without the matrix; `projected_gradients`: estimates by random projection.
- `kernel_blocks`: a kernel of any size, over a mesh, on disk.
- `stax`: kernels of infinitely wide networks, layer by layer.
- `predict`: what gradient descent makes of a kernel.

Names that end in `_fn`, `batch`, `stax` and `predict` have the meaning that neural-tangents documents for them.
"""
