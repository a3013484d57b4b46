"""A home with a registry, keys and a tiny base, for commands that need a server of their own."""

from tests.gateway.conftest import ground, model

__all__ = ["ground", "model"]
