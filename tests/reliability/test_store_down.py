"""R13: whatever the object store does, what is loaded is served, and nothing else in place of what is not."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import obstore
import pytest
from obstore.store import S3Store

from foreword.errors import RegistryError
from foreword.registry.objects import open_blobs
from foreword.registry.registry import Registry
from foreword.signing.store import load_policy
from tests.gateway.edge_server import until
from tests.registry import servers
from tests.reliability.faulty_store import Fault, FaultyStore, faulty_store
from tests.reliability.report import LONG, Goals
from tests.reliability.steady import Asking, p99, steady
from tests.reliability.toy_server import PREFIX_BYTES, Home, Process, Said, free_port, home
from tests.signing.made import NOW

pytestmark = pytest.mark.reliability("R13")

FEW: tuple[Fault, ...] = ("half 5xx", "flipped", "down", "silent")
MORE: tuple[Fault, ...] = ("5xx", "403", "stale", "truncated", "short", "other", "slow", "drip")
FAULTS = (*FEW, *MORE) if LONG else FEW
LOADED, ROOM = 12, 4
"""Prefixes that were used before the fault, and how many of them are in memory; all are on disk."""
COLD = dict.fromkeys(FAULTS, 20) if LONG else {**dict.fromkeys(FAULTS, 3), "silent": 9}
"""Asked for at once under each fault, for the first time: more than are fetched at once."""
CORRUPT = 1_000 if LONG else 90
WAITERS = 500 if LONG else 40
LATE = 5
"""Cold prefixes that are asked for once the others are told."""
STEADY = 20.0 if LONG else 0.3
"""Seconds in which loaded prefixes are asked for, under each fault and right before it."""
FETCH = 8.0 if LONG else 1.5
SOON, TOLD, ATTEMPTS, TRIES = 5.0, 10.0, 4, 3
SLOWER = 1.05
"""What the 99th percentile of loaded prefixes may grow by; a short run says nothing about it."""


@dataclass
class Shop:
    """A server whose prefixes lie behind a store that does as it is told."""

    at: Home
    server: Process
    store: FaultyStore
    loaded: list[str]
    cold: Iterator[str]

    def next_cold(self, count: int) -> list[str]:
        return list(itertools.islice(self.cold, count))


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with ExitStack() as opened:
        real = opened.enter_context(servers.s3())
        patch = opened.enter_context(pytest.MonkeyPatch.context())
        for name, value in real.environment.items():
            patch.setenv(name, value)
        port = int(real.environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
        store = opened.enter_context(faulty_store(port))
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.port}")
        at = opened.enter_context(home(blobs=f"s3://{real.bucket}/r13"))
        count = LOADED + 2 * (sum(COLD.values()) + len(FAULTS) * LATE) + 20
        names = [f"acme/p{number}" for number in range(count)]
        for name in names:
            at.publish(name)
        room = {"prefix_bytes": ROOM * PREFIX_BYTES, "waiting": 2_000, "waiting_per_tenant": 2_000}
        embedded = {**room, "fetch_seconds": FETCH}
        options = (("--set", f"embedded.{name}={value}") for name, value in embedded.items())
        server = opened.enter_context(at.process(free_port(), *itertools.chain(*options)))
        loaded = names[:LOADED]
        assert all(said.right for said in server.ask_all(loaded))
        yield Shop(at, server, store, loaded, iter(names[LOADED:]))


@dataclass(frozen=True)
class Bad:
    """What was seen under one fault."""

    fault: Fault
    calm: tuple[float, float]
    """By the monotonic clock: right before, when all was well and as many cold ones were asked for."""
    bad: tuple[float, float]
    """When it was not."""
    cold: list[Said]
    most_asked: int
    """Requests for one object."""
    refused: list[Said]
    """Of cold prefixes asked for once the others are told."""
    healed: float
    """Seconds until all that was asked for is answered, from when the store is well again."""


def under(shop: Shop, fault: Fault) -> Bad:
    calm = time.monotonic()
    for count in (COLD[fault], LATE):
        assert all(each.right for each in shop.server.ask_all(shop.next_cold(count), count))
    time.sleep(STEADY)
    cold, last = shop.next_cold(COLD[fault]), shop.next_cold(LATE)
    began, shop.store.fault = time.monotonic(), fault
    begun = len(shop.store.asked)
    said = shop.server.ask_all(cold, len(cold))
    asked = Counter(each.key for each in shop.store.asked[begun:])
    refused = shop.server.ask_all(last, LATE)
    time.sleep(STEADY)
    ended, shop.store.fault = time.monotonic(), "none"
    missing = cold + last
    while missing:
        missing = [each.name for each in shop.server.ask_all(missing) if not each.right]
    healed = time.monotonic() - ended
    return Bad(fault, (calm, began), (began, ended), said, max(asked.values()), refused, healed)


def test_a_store_that_fails_while_prefixes_are_served(shop: Shop, goals: Goals) -> None:
    with steady(shop.server, shop.loaded) as loaded:
        seen = [under(shop, fault) for fault in FAULTS]
    goals.goal("loaded and disk-cached prefixes that were not answered, or by another prefix",
               value=sum(not each.right for each in loaded.said),
               passed=all(each.right for each in loaded.said), count=len(loaded.said))  # fmt: skip
    if LONG:
        _goal_of_speed(goals, loaded, seen)
    _goals_of_cold(goals, seen)
    _goals_of_the_store(goals, seen)


def _goal_of_speed(goals: Goals, loaded: Asking, seen: list[Bad]) -> None:
    """All faults together against the calm moments between them: one alone tells the machine's moods."""
    calm = [loaded.between(*each.calm) for each in seen]
    bad = [loaded.between(*each.bad) for each in seen]
    grown = {
        each.fault: p99(under_it) / p99(before)
        for each, under_it, before in zip(seen, bad, calm, strict=True)
    }
    worst = max(grown, key=lambda fault: grown[fault])
    usual, slower = p99(list(itertools.chain(*calm))), p99(list(itertools.chain(*bad)))
    goals.goal(f"their 99th percentile ({1000 * usual:.1f} ms when all is well) grows at most "
               f"{SLOWER:g} times (most under {worst!r}, {grown[worst]:.2f} times)", value=slower / usual,
               passed=slower <= SLOWER * usual, count=sum(map(len, bad)))  # fmt: skip


def _goals_of_cold(goals: Goals, seen: list[Bad]) -> None:
    cold = [said for bad in seen for said in (*bad.cold, *bad.refused)]
    goals.goal("cold prefixes answered by another prefix or the bare model",
               value=sum(said.wrong for said in cold),
               passed=not any(said.wrong for said in cold), count=len(cold))  # fmt: skip
    told = [said for said in cold if said.status != 200]
    codes = {said.code for said in told}
    typed = all(said.status == 503 and said.code.startswith("prefix.fetch") for said in told)
    goals.goal("those that are not answered get 503 and why", value=", ".join(sorted(codes)),
               passed=bool(told) and typed, count=len(told))  # fmt: skip
    latest = max(said.retry_after for said in told)
    goals.goal("with a Retry-After of at most 2 s", value=latest, passed=latest <= 2.0,
               count=len(told))  # fmt: skip
    longest = max(said.seconds for said in told)
    goals.goal(f"as many as {max(COLD.values())} at once under a fault are told within {TOLD:g} s",
               value=longest, passed=longest <= TOLD, count=len(told))  # fmt: skip


def _goals_of_the_store(goals: Goals, seen: list[Bad]) -> None:
    healed = max(seen, key=lambda bad: bad.healed)
    goals.goal(f"once it is well again, all of them are answered within {SOON:g} s (longest: {healed.fault})",
               value=healed.healed, passed=healed.healed <= SOON, count=sum(COLD.values()))  # fmt: skip
    most = max(bad.most_asked for bad in seen)
    goals.goal(f"an object is asked for at most {TRIES} times {ATTEMPTS} before its request is told",
               value=most, passed=2 <= most <= TRIES * ATTEMPTS, count=sum(COLD.values()))  # fmt: skip
    away = [said for bad in seen if bad.fault in ("down", "5xx", "silent") for said in bad.refused]
    # One fetch is let through each second, to see whether somebody is there again.
    slowest = sorted(said.seconds for said in away)[-1 - len(away) // LATE]
    goals.goal("the circuit is open then: all other cold prefixes but one are refused within 0.5 s",
               value=slowest, passed=slowest <= 0.5 and all(said.status == 503 for said in away),
               count=len(away))  # fmt: skip


def test_retries_are_spread(shop: Shop, goals: Goals) -> None:
    begun, shop.store.fault = len(shop.store.asked), "5xx"
    shop.server.ask_all(shop.next_cold(6), 6)
    shop.store.fault = "none"
    times: dict[str, list[float]] = {}
    for asked in shop.store.asked[begun:]:
        times.setdefault(asked.key, []).append(asked.at)
    gaps = [
        later - earlier for each in times.values() for earlier, later in itertools.pairwise(each)
    ]
    spread = statistics.stdev(gaps) / statistics.mean(gaps)
    goals.goal("pauses between tries vary: standard deviation over mean, at least 0.1", value=spread,
               passed=spread >= 0.1, count=len(gaps))  # fmt: skip


def test_corrupt_bytes_are_never_accepted(shop: Shop, goals: Goals) -> None:
    trust, registry = load_policy(shop.at.directory / "trust.toml"), shop.at.registry
    digest = registry.resolve(shop.loaded[0]).digest
    registry.fetch(digest, trust, NOW)
    # Not what the store is asked for meanwhile: the server may still fetch for the tests before.
    keys = [blob.hex for blob in registry.state.version(digest).blobs]
    kinds: tuple[Fault, ...] = ("flipped", "other", "short")
    refused, accepted, control = 0, 0, 0
    raw = S3Store.from_url(
        open_blobs(f"{registry.blobs.shown}").shown, client_options={"allow_http": True}
    )
    for number, (kind, key) in zip(range(CORRUPT), itertools.cycle(itertools.product(kinds, keys))):
        shop.store.fault, shop.store.only = kind, frozenset({key})
        spoiled = shop.store.spoiled
        try:
            registry.fetch(digest, trust, NOW)
        except RegistryError as e:
            refused += e.code == "registry.blob_damaged"
        else:  # a client that reads a second time by itself may get whole bytes then
            accepted += shop.store.spoiled > spoiled
        if not number % 30:
            control += len(obstore.get(raw, f"sha256/{key[:2]}/{key}").bytes()) > 0
    shop.store.fault, shop.store.only = "none", None
    goals.goal("corrupt bytes accepted, of manifests, tensors and envelopes", value=accepted,
               passed=not accepted and refused >= 0.9 * CORRUPT, count=refused)  # fmt: skip
    goals.goal("a client that does not compare digests takes them", value=control,
               passed=control == -(-CORRUPT // 30), count=control)  # fmt: skip


def test_one_fetch_for_all_who_wait(shop: Shop, goals: Goals) -> None:
    # What failed before may have left the circuit open; a cold one that is answered closes it.
    first, name = shop.next_cold(2)
    until(lambda: shop.server.ask(first).right, 10)
    begun, shop.store.delay = len(shop.store.asked), 0.2
    said = shop.server.ask_all([name] * WAITERS, WAITERS)
    shop.store.delay = 0.0
    asked = Counter(each.key for each in shop.store.asked[begun:])
    goals.goal(f"{WAITERS} requests for one cold prefix: times that each of its objects is fetched",
               value=max(asked.values()), passed=set(asked.values()) == {1}, count=WAITERS)  # fmt: skip
    goals.goal("all of them are answered", value=sum(each.right for each in said),
               passed=all(each.right for each in said), count=WAITERS)  # fmt: skip


def test_a_name_that_cannot_be_resolved(
    shop: Shop, goals: Goals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS is gone: a server that starts has what is on its disk, and refuses the rest."""
    shown = shop.at.registry.blobs.shown
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.invalid:8333")
    lost = Registry(shop.at.registry.database, open_blobs(shown), 0)
    cold = shop.next_cold(2)
    with shop.at.serving() as server:
        assert all(said.right for said in server.ask_all(shop.loaded))
    with shop.at.serving(lost, embedded={"fetch_seconds": FETCH}) as server:
        known, unknown = server.ask_all(shop.loaded), server.ask_all(cold)
    goals.goal("DNS gone, after a restart: disk-cached prefixes answered", value=sum(s.right for s in known),
               passed=all(s.right for s in known), count=len(known))  # fmt: skip
    goals.goal("DNS gone: the others are told within 10 s", value=max(s.seconds for s in unknown),
               passed=all(s.status == 503 and s.seconds <= TOLD for s in unknown),
               count=len(unknown))  # fmt: skip


def test_a_server_without_copies_is_found_out(shop: Shop, goals: Goals) -> None:
    """The same store against a server that keeps no copies on disk: not all is well then."""
    embedded = {"disk_bytes": 0, "prefix_bytes": ROOM * PREFIX_BYTES}
    with shop.at.serving(embedded=embedded) as server:
        assert all(said.right for said in server.ask_all(shop.loaded))
        shop.store.fault = "down"
        lost = sum(not said.right for said in server.ask_all(shop.loaded))
        shop.store.fault = "none"
    enough = lost >= (LOADED - ROOM) / 2
    goals.goal(
        "without copies on disk, used prefixes are lost", value=lost, passed=enough, count=LOADED
    )
