"""The HTTP connection itself: limits on what a client can make large or slow."""
