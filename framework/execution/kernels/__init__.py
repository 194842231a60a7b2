"""Compute kernels that PyTorch lacks, by device."""
