"""CUDA C++ and Numba-CUDA kernels (``pyframe._kernels``), read by the loaders in L1."""
