"""Experiments on live traffic: was it split as said, and what came of it, looked at as often as one likes."""
