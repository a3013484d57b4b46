"""Metrics: numbers for answers, each of which says what it is and how it was made."""
