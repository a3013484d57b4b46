"""Gates: scorecards and a policy become a verdict that states its own error rates."""
