"""Programs that tests here share."""

from tests.telemetry.servers import prometheus_programs

__all__ = ["prometheus_programs"]
