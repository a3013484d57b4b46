"""The verbs that judge."""
