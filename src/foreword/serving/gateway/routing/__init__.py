"""From the name in a request to the digest that answers it."""
