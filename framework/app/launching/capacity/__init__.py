"""Sweeps that look, in each cell, for the highest load at which enough requests meet their objectives."""
