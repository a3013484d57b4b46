"""A conversation with one prefix or two, without a terminal."""
