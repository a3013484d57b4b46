"""KEEP: where prefix versions live, and which ones are live. Needs no torch."""
