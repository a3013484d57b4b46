"""The front door: HTTP for many tenants, in front of any backend."""
