"""A bounded load on a server, and what came of it."""
