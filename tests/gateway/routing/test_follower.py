"""Following the journal: what is released takes effect, and what fails changes nothing."""

from __future__ import annotations

import threading
import time

import pytest

from foreword.errors import ForewordError
from foreword.registry.database import Database
from foreword.registry.registry import Registry
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.routing.follower import Follower
from foreword.serving.gateway.routing.known_good import from_bytes
from foreword.serving.gateway.routing.resolve import Router
from foreword.telemetry.records import ReleaseSeen
from tests.gateway.routing.conftest import NAME, Farm, Host, seconds_until, stable
from tests.gateway.routing.made import HERE, access_of, principal
from tests.registry.samples import by, sample

ACME = principal()


def router(follower: Follower) -> Router:
    return Router(
        lambda: follower.table,
        lambda: access_of(Tenant("acme", base=True)),
        HERE,
        used=follower.used,
        unread=follower.unread,
    )


def test_a_started_follower_answers_at_once(farm: Farm) -> None:
    (digest,) = farm.publish("1.0.0")
    farm.release(f"{NAME}@1.0.0")
    follower = farm.following()
    route = router(follower).route(ACME, NAME, "a key")
    assert route.prefix is not None
    assert route.prefix.digest == digest
    assert route.prefix.prompt == sample().manifest.prompt
    status = follower.status
    assert (status.source, status.error, status.unread, status.unkept) == ("journal", "", 0, "")
    assert status.seq == follower.table.seq == farm.registry.refresh().head.seq
    assert status.age < 2
    assert farm.seen == []  # what held before it began is no news


def test_an_empty_registry_is_followed_too(farm: Farm) -> None:
    follower = farm.following()
    assert follower.status.source == "journal"
    farm.publish("1.0.0")
    farm.release(f"{NAME}@1.0.0")
    assert seconds_until(lambda: stable(follower)) < 1


@pytest.mark.parametrize("delay", [None, 0.1])
def test_a_release_takes_effect_within_a_second(farm: Farm, delay: float | None) -> None:
    farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    host = Host(delay)
    follower = farm.following(host=host)
    wanted = farm.registry.resolve(f"{NAME}@2.0.0").digest
    farm.release(f"{NAME}@2.0.0")
    taken = seconds_until(lambda: stable(follower) == wanted)
    assert taken < (1.0 if delay is None else 0.6)
    assert wanted in host.asked
    assert host.is_resident(wanted) == (delay is not None)


def test_a_release_is_served_only_once_it_is_resident(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    host = Host(0.3)
    follower = farm.following(host=host)
    farm.release(f"{NAME}@2.0.0")
    seconds_until(lambda: second in host.asked)
    while stable(follower) == first:
        assert not host.is_resident(second) or time.monotonic() < host.asked[second] + 0.45
        time.sleep(0.002)
    assert host.is_resident(second)


def test_a_revocation_takes_effect_at_once_and_the_host_forgets(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.release(f"{NAME}@2.0.0")
    host = Host(None)
    follower = farm.following(host=host)
    farm.revoke(f"{NAME}@2.0.0")
    assert seconds_until(lambda: stable(follower) == first) < 0.5
    with pytest.raises(ForewordError) as caught:
        router(follower).route(ACME, f"{NAME}@2.0.0", "")
    assert caught.value.code == "prefix.revoked"
    seconds_until(lambda: host.forgotten == [second])
    assert first in host.asked


def test_a_rollback_takes_effect_at_once_although_nothing_is_warm(farm: Farm) -> None:
    first, _ = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.release(f"{NAME}@2.0.0")
    follower = farm.following(host=Host(None))
    farm.registry.rollback(NAME, by=by())
    assert seconds_until(lambda: stable(follower) == first) < 0.5


def test_a_host_that_does_not_answer_delays_nothing_and_is_told_again(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    host = Host(refuses=True)
    follower = farm.following(host=host)
    farm.release(f"{NAME}@2.0.0")
    assert seconds_until(lambda: stable(follower) == second) < 1
    farm.revoke(f"{NAME}@2.0.0")
    assert seconds_until(lambda: stable(follower) == first) < 0.5
    host.refuses = False
    seconds_until(lambda: host.forgotten == [second], 2)


def test_what_took_effect_is_told_once(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    follower = farm.following(now=lambda: by(seconds=3).now)
    farm.release(f"{NAME}@2.0.0", 0.25)
    seconds_until(lambda: farm.seen)
    follower.stop()
    (seen,) = farm.seen
    assert (seen.name, seen.seq, seen.stable, seen.canary, seen.share) == (
        NAME, follower.table.seq, str(first), str(second), 0.25,
    )  # fmt: skip
    assert seen.delay == 3


def test_a_listener_that_breaks_stops_nothing(farm: Farm) -> None:
    def broken(_seen: ReleaseSeen) -> None:
        raise ValueError("no")

    farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    follower = farm.following(told=broken)
    for version in ("2.0.0", "1.0.0"):
        wanted = farm.registry.resolve(f"{NAME}@{version}").digest
        farm.release(f"{NAME}@{version}") if version == "2.0.0" else farm.registry.rollback(
            NAME, by=by()
        )
        seconds_until(lambda wanted=wanted: stable(follower) == wanted)  # type: ignore[misc]
    assert follower.status.error == ""


# Faults.


def test_a_database_that_fails_changes_nothing_and_is_followed_again(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    follower = farm.following()
    farm.break_database()
    seconds_until(lambda: follower.status.error)
    status = follower.status
    assert (status.source, status.error) == ("journal", "storage.database")
    assert "no such table" in status.detail
    age = follower.age
    time.sleep(0.05)
    assert follower.age > age
    assert stable(follower) == first
    assert router(follower).route(ACME, NAME, "").prefix
    farm.mend_database()
    farm.release(f"{NAME}@2.0.0")
    assert seconds_until(lambda: stable(follower) == second) < 5
    assert follower.status.error == ""
    assert follower.age < 1


def test_a_journal_that_lost_entries_is_not_believed(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.release(f"{NAME}@2.0.0")
    farm.revoke(f"{NAME}@2.0.0")
    follower = farm.following()
    seq = follower.table.seq
    farm.forget_entries(1)  # the revocation
    seconds_until(lambda: follower.status.error)
    assert follower.status.error == "registry.chain"
    assert (follower.table.seq, stable(follower)) == (seq, first)
    assert not follower.table.serves(second)


class Hanging(Database):
    """A database that can be made to hang."""

    def __init__(self, url: str, passes: int = 0) -> None:
        super().__init__(url)
        self.passes = passes
        self.free = threading.Event()
        self.free.set()

    def run(self, work):  # type: ignore[no-untyped-def]
        if self.passes:
            self.passes -= 1
        else:
            self.free.wait()
        return super().run(work)


def test_a_database_that_hangs_delays_neither_requests_nor_warm_releases_nor_the_end(
    farm: Farm,
) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    database = Hanging(f"sqlite:///{farm.database}")
    host = Host(None)
    follower = Follower(Registry(database, farm.layout.open_blobs()), HERE, host=host)
    follower.start()
    assert stable(follower) == first
    farm.release(f"{NAME}@2.0.0")
    seconds_until(lambda: second in host.asked)
    database.free.clear()
    assert seconds_until(lambda: stable(follower) == second) < 0.8
    began = time.monotonic()
    assert router(follower).route(ACME, NAME, "").prefix
    assert time.monotonic() - began < 0.05
    follower.stop(patience=0.2)
    assert time.monotonic() - began < 1
    database.free.set()


def test_an_object_store_that_is_away_at_the_start_is_read_when_it_is_back(farm: Farm) -> None:
    farm.publish("1.0.0")
    farm.release(f"{NAME}@1.0.0")
    blobs, away = farm.layout.directory / "blobs", farm.layout.directory / "away"
    blobs.rename(away)
    began = time.monotonic()
    follower = farm.following(patience=0.5)
    assert 0.4 < time.monotonic() - began < 2
    assert follower.status.unread == 1
    with pytest.raises(ForewordError) as caught:
        router(follower).route(ACME, NAME, "")
    assert caught.value.code == "prefix.fetch_failed"
    away.rename(blobs)
    assert seconds_until(lambda: not follower.status.unread) < 5
    assert router(follower).route(ACME, NAME, "").prefix


def test_versions_nobody_released_can_be_pinned_too(farm: Farm) -> None:
    farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    follower = farm.following()
    wanted = farm.registry.resolve(f"{NAME}@2.0.0").digest
    seconds_until(lambda: wanted in follower.table.prompts)
    assert router(follower).route(ACME, f"{NAME}@2.0.0", "").prefix


def test_it_ends_with_all_its_threads(farm: Farm) -> None:
    before = set(threading.enumerate())
    follower = farm.following(host=Host(0.0))
    assert len(set(threading.enumerate()) - before) > 2
    follower.stop()
    assert set(threading.enumerate()) <= before


# A start without a database.


def away(farm: Farm) -> None:
    farm.database.rename(farm.directory / "journal.away")


def back(farm: Farm) -> None:
    (farm.directory / "journal.away").rename(farm.database)


def test_a_start_without_a_database_serves_what_was_known(farm: Farm) -> None:
    first, _ = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.release(f"{NAME}@2.0.0")
    farm.revoke(f"{NAME}@2.0.0")
    follower = farm.following()
    router(follower).route(ACME, NAME, "")
    follower.stop()
    away(farm)
    (farm.layout.directory / "blobs").rename(farm.directory / "blobs.away")
    host = Host(0.0)
    later = farm.following(host=host, now=lambda: by(seconds=10**9).now)
    status = later.status
    assert (status.source, status.error, status.seq) == (
        "known good", "storage.database", follower.table.seq,
    )  # fmt: skip
    assert status.age > 1_000
    route = router(later).route(ACME, NAME, "")
    assert route.prefix is not None
    assert (route.prefix.digest, route.prefix.prompt) == (first, sample().manifest.prompt)
    with pytest.raises(ForewordError) as caught:
        router(later).route(ACME, f"{NAME}@2.0.0", "")
    assert caught.value.code == "prefix.revoked"
    assert list(host.asked) == [first]  # what was used is loaded before anybody asks
    back(farm)
    assert seconds_until(lambda: later.status.source == "journal") < 5
    assert later.age < 5


def test_a_known_good_table_is_not_looked_at_while_the_journal_can_be_read(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.following().stop()
    farm.release(f"{NAME}@2.0.0")
    later = farm.following()
    assert (later.status.source, stable(later)) == ("journal", second)
    assert first != second


def test_what_was_used_before_a_restart_is_loaded_first_and_what_was_revoked_since_is_forgotten(
    farm: Farm,
) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    follower = farm.following()
    for form in (f"{NAME}@2.0.0", f"{NAME}@1.0.0"):
        seconds_until(lambda: second in follower.table.prompts)
        router(follower).route(ACME, form, "")
    follower.stop()
    farm.revoke(f"{NAME}@2.0.0")
    host = Host(0.0)
    farm.following(host=host)
    assert list(host.asked) == [first]
    seconds_until(lambda: host.forgotten == [second])


def test_a_database_that_comes_back_older_than_what_is_served_is_not_believed(farm: Farm) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.release(f"{NAME}@2.0.0")
    farm.revoke(f"{NAME}@2.0.0")
    farm.following().stop()
    farm.forget_entries(1)
    away(farm)
    later = farm.following()
    back(farm)
    seconds_until(lambda: later.status.error == "registry.chain")
    assert (later.status.source, stable(later)) == ("known good", first)
    assert not later.table.serves(second)


def test_a_read_that_began_before_the_file_was_taken_is_not_believed_unseen(farm: Farm) -> None:
    farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@2.0.0")
    farm.revoke(f"{NAME}@2.0.0")
    farm.following().stop()
    farm.forget_entries(1)
    database = Hanging(f"sqlite:///{farm.database}", passes=1)  # the look at the schema
    database.free.clear()
    follower = Follower(
        Registry(database, farm.layout.open_blobs()), HERE, known_good=farm.known_good, host=Host()
    )
    follower.start(patience=0.4)
    assert follower.status.source == "known good"
    database.free.set()
    seconds_until(lambda: follower.status.error or follower.status.source == "journal")
    assert (follower.status.source, follower.status.error) == ("known good", "registry.chain")
    follower.stop()


def test_without_database_and_without_a_file_it_starts_and_says_so(farm: Farm) -> None:
    farm.publish("1.0.0")
    farm.release(f"{NAME}@1.0.0")
    away(farm)
    follower = farm.following()
    status = follower.status
    assert (status.source, status.seq, status.age) == ("nothing", 0, float("inf"))
    back(farm)
    assert seconds_until(lambda: stable(follower)) < 5


def test_a_damaged_file_is_told_and_not_used(farm: Farm) -> None:
    farm.publish("1.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.following().stop()
    farm.known_good.write_bytes(farm.known_good.read_bytes()[:-100])
    away(farm)
    follower = farm.following()
    assert follower.status.source == "nothing"
    assert follower.status.unkept
    back(farm)
    seconds_until(lambda: follower.status.source == "journal")


def test_a_change_is_in_the_file_soon(farm: Farm) -> None:
    """A crash must not bring back what was revoked a moment before."""
    _, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@2.0.0")
    follower = farm.following()
    farm.revoke(f"{NAME}@2.0.0")
    seconds_until(lambda: not follower.table.serves(second))

    def is_written() -> bool:
        return farm.known_good.exists() and not from_bytes(
            farm.known_good.read_bytes()
        ).table.serves(second)

    assert seconds_until(is_written) < 1
