"""C++ kernels for CPUs: packed matrix products, attention over the paged cache, and fused elementwise operations.

Compiled at first use with the system's C++ compiler and cached; `native.unavailable_reason()` says why not, if so.
"""
