"""Settings for all tests."""

import pytest
from hypothesis import settings

from tests.reliability.report import GOAL

# A busy machine makes single examples slow; that is no failure.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the reliability tests measured in workers; a run in one process says it by itself."""
    if not terminalreporter.config.pluginmanager.has_plugin("dsession"):
        return
    found = [each for reports in terminalreporter.stats.values() for each in reports]
    said = [
        line
        for each in found
        if getattr(each, "when", "") == "teardown"
        for name, line in each.user_properties
        if name == GOAL
    ]
    if said:
        terminalreporter.section("reliability, sample")
        for line in sorted(said):
            terminalreporter.line(line)
