"""Graph strategies: which batch shapes are captured as CUDA graphs."""
