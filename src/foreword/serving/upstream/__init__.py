"""A backend in another process, over HTTP."""
