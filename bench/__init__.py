"""Benchmarks of the engine against other ways to compute the same, side by side in one run."""
