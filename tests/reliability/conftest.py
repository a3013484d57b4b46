"""Every test here belongs to an id of the plan and writes its goals down; see report.py."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import pytest

from tests.registry import servers
from tests.registry.scratch import scratch
from tests.reliability import report, served
from tests.reliability.crash import Harness, find_strace
from tests.reliability.grounds import Ground, OnPostgres, OnSqlite
from tests.reliability.trials import Trials, all_trials

RECORDS = pytest.StashKey[list[report.Record]]()
COMMIT = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "reliability(id): belongs to this id of the test plan")
    config.stash[RECORDS] = []
    config.stash[COMMIT] = report.commit()  # now: the tree may move on during a long run


@pytest.fixture
def goals(request: pytest.FixtureRequest) -> Iterator[report.Goals]:
    """Where a test writes what it measured; a goal that was missed fails the test at its end."""
    given = report.Goals(*_name(request.node))
    yield given
    request.config.stash[RECORDS].extend(given.records)
    # What a worker of a run in parallel can hand over (tests/conftest.py prints it).
    request.node.user_properties += [(report.GOAL, record.line()) for record in given.records]
    if missed := given.missed():
        pytest.fail("\n".join(missed), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that broke before it could write a goal must not leave an old entry looking fresh."""
    outcome = yield
    if not outcome.failed or item.get_closest_marker("reliability") is None:
        return outcome
    records = item.config.stash[RECORDS]
    if not any(r.test == item.name and not r.passed for r in records):
        broken = report.Goals(*_name(item))
        reason = call.excinfo.typename if call.excinfo else "failed"
        broken.goal("the test runs to its end", value=reason, passed=False, count=0)
        records += broken.records
    return outcome


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    records = sorted(config.stash[RECORDS], key=lambda record: record.id)
    if not records:
        return
    terminalreporter.section("reliability, long run" if report.LONG else "reliability, sample")
    for record in records:
        terminalreporter.line(record.line())
    if not report.LONG:
        return
    if terminalreporter.stats.get("deselected") or any("::" in word for word in config.args):
        # An id is replaced as a whole, so half of its tests would look like all of them.
        terminalreporter.line("not written: only a part of the tests ran")
        return
    report.write(records, config.stash[COMMIT])
    terminalreporter.line(f"written to {report.FILE.relative_to(report.ROOT)}")


def _name(item: pytest.Item) -> tuple[str, str]:
    marker = item.get_closest_marker("reliability")
    if marker is None:
        raise pytest.UsageError(f"{item.nodeid} needs @pytest.mark.reliability(id)")
    return str(marker.args[0]), item.name


@pytest.fixture(scope="session")
def counting_server() -> Iterator[served.Served]:
    """`foreword serve` on a model that counts, in a process of its own, for whoever asks it."""
    with served.served() as running:
        yield running


@pytest.fixture(scope="session")
def harness() -> Harness:
    """Runs operations under strace."""
    return Harness(find_strace())


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A kind of database with blobs in a directory, and a prepared registry to copy."""
    with scratch() as directory, contextlib.ExitStack() as running:
        if request.param == "sqlite":
            yield OnSqlite(directory)
            return
        server = running.enter_context(servers.postgres())
        patch = running.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PGPASSWORD", server.password)
        yield OnPostgres(directory, server)


@pytest.fixture(scope="session")
def trials(harness: Harness, ground: Ground) -> list[Trials]:
    """Every operation on that ground; what it does undisturbed is looked at once."""
    return all_trials(harness, ground)
