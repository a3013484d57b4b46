"""TRUST: who vouches for an artifact. Needs no torch."""
