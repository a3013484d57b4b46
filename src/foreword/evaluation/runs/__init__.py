"""Runs: variants replayed on the rows of a golden set."""
