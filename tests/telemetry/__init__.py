"""Telemetry, with the real Prometheus and a real OTLP receiver."""
