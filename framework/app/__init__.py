"""What runs: one cell from configuration to record, sweeps of cells, the commands, and the Python API."""
