"""Clients of a server: what it answers, conversations, a look at its figures, load."""
