"""Sweeps whose cells Optuna chooses."""
