"""Measures how long steps take on the device at hand and fits the profile that simulations use."""
