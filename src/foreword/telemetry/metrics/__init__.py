"""Series with a bound: families of numbers, closed labels, and which prefixes have a name."""
