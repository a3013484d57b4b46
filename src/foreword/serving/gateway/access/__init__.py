"""Who asks, and what they may use."""
