"""The operator's API, on a port and with keys of its own."""
