"""Grids of runs: planned, trained, stored."""
