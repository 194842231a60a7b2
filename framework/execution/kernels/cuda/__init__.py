"""Triton kernels for CUDA GPUs. Nothing here is imported before a CUDA device is chosen.

All kernels also run under Triton's interpreter (TRITON_INTERPRET=1, with tensors on the CPU). Tests use it on machines
without a GPU.
"""
