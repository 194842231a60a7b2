"""C++ kernels for CPUs: packed matrix products, attention over the paged cache, and fused elementwise operations.

They are compiled at first use with the system's C++ compiler, and cached. If that is not possible,
`native.unavailable_reason()` says why.
"""
