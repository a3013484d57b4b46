"""Statistics of judging: intervals, tests, and what they cost and miss."""
