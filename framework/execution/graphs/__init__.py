"""Captured steps and pieces of steps, and the choice of the strategy that captures them."""
