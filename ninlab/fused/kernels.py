"""The fused operators as Triton kernels for CUDA, each the namesake of one in `reference`."""
