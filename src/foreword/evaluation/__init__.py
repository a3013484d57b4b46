"""Judging a prefix: golden sets, metrics, scorecards, gates, drift."""
