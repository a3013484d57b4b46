"""Requests, operators and faults in any order: the right prefix, and every byte adds up."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from foreword.artifact import Artifact, Digest
from foreword.errors import PrefixUnavailable, StorageError
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import (
    BreakerRules,
    LoadLimits,
    Resident,
)
from foreword.signing.verify import VerifiedArtifact
from tests.serving.prefix_samples import (
    Clock,
    Source,
    kv,
    same,
    step,
    store,
    until,
    use,
    verified,
)


class AnyOrder(RuleBasedStateMachine):
    """Requests, operators and faults in any order; a model knows who holds what."""

    base: BaseModel
    known: dict[Digest, VerifiedArtifact]

    @initialize()
    def begin(self) -> None:
        self.source = Source(dict(self.known))
        self.digests = list(self.known)
        self.bad: set[Digest] = set()
        self.source.before = self.fail_if_bad
        self.clock = Clock()
        self.running: list[Resident] = []
        self.codes: set[str] = set()
        limits = LoadLimits(room=0.3, grace=0.05)
        rules = BreakerRules(pause=0.01, shortest=0.05, longest=0.2, permanent=0.5)
        self.store = store(self.base, self.source, room=3, limits=limits, rules=rules)

    def fail_if_bad(self, digest: Digest) -> None:
        if digest in self.bad:
            raise StorageError("down")

    @rule(number=st.integers(0, 5))
    def request(self, number: int) -> None:
        try:
            resident = self.store.want(self.digests[number], self.clock.now)
        except PrefixUnavailable as e:
            self.codes.add(e.code)
            return
        if resident is not None:
            assert same(resident, kv(self.base, number))
            self.store.pin(resident)
            self.running.append(resident)

    @rule(place=st.integers(0, 99))
    def finish(self, place: int) -> None:
        if self.running:
            self.store.unpin(self.running.pop(place % len(self.running)))

    @rule(number=st.integers(0, 5))
    def evict(self, number: int) -> None:
        if self.store.evict(self.digests[number]):
            assert all(resident.digest != self.digests[number] for resident in self.running)

    @rule(number=st.integers(0, 5))
    def forget(self, number: int) -> None:
        self.store.forget(self.digests[number], self.clock.now)

    @rule(number=st.integers(0, 5))
    def break_or_heal(self, number: int) -> None:
        self.bad ^= {self.digests[number]}

    @rule(numbers=st.sets(st.integers(0, 5), max_size=2))
    def pin_list(self, numbers: set[int]) -> None:
        self.store.pin_list(self.digests[number] for number in numbers)

    @rule(number=st.integers(0, 5))
    def prefetch(self, number: int) -> None:
        self.store.prefetch([self.digests[number]], self.clock.now)

    @rule(steps=st.integers(1, 8), seconds=st.sampled_from([0.0, 0.05, 1.0]))
    def go_on(self, steps: int, seconds: float) -> None:
        self.clock.pass_by(seconds)
        for _ in range(steps):
            step(self.store, self.clock)

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "store"):
            return
        self.store.check_integrity()
        assert self.codes <= {"prefix.fetch_failed", "prefix.no_room"}
        assert self.store.stats().pinned == len(set(self.running))
        for resident in self.running:  # pinned: still its own numbers
            assert resident.kv.layers

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for resident in self.running:
            self.store.unpin(resident)
        self.bad.clear()
        self.store.pin_list([])
        # What failed on its way before may still close a door for a moment.
        until(self.store, self.clock, lambda: self.store.stats().loading == 0)
        self.clock.pass_by(5.0)
        for digest in self.digests:
            use(self.store, digest, self.clock)
        self.store.close()
        self.store.check_integrity()


def test_in_any_order_the_right_prefix_and_every_byte_accounted_for(
    base: BaseModel, made: list[Artifact]
) -> None:
    AnyOrder.base = base
    AnyOrder.known = {each.digest: verified(each) for each in made[:6]}
    case = AnyOrder.TestCase
    case.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
    case("runTest").runTest()
