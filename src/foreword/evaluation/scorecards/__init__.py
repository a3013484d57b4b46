"""Scorecards: what a run came to, slice by slice, as values, JSON, Markdown and one HTML page."""
