"""Triton kernels for CUDA GPUs. Nothing here is imported before a CUDA device was chosen.

All of them run under Triton's interpreter too (TRITON_INTERPRET=1, CPU tensors), which is how they are tested without a
GPU.
"""
