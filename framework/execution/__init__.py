"""How steps run on a device: kernels, device-resident state, graphs, one rank, many ranks."""
