"""State is a fold: the same whatever the steps, and what a naive bookkeeper would have written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.artifact import Digest
from foreword.errors import ForewordError, NotFound, RegistryError
from foreword.registry import decide
from foreword.registry.decide import Already, Decision
from foreword.registry.entries import (
    Aliased,
    Approved,
    BaseDeclared,
    BaseWithdrawn,
    Published,
    Released,
    Retired,
    RolledBack,
)
from foreword.registry.references import ByDigest, ByName, ByVersion, parse_reference
from foreword.registry.state import State, fold
from tests.registry.samples import BASE, NAME, OTHER_BASE, Log, by, claim, facts

NAMES = ["acme/a", "acme/b"]
SOME_NAME = st.sampled_from(["acme/a", "acme/a", "acme/a", "acme/b"])
NUMBERS = st.integers(0, 3)
SHARES = st.sampled_from([0.0, 0.5, 1.0])


@dataclass
class Book:
    """One name, kept by somebody who knows nothing of events: only what each command means."""

    versions: list[Digest] = field(default_factory=list)
    gone: set[Digest] = field(default_factory=set)
    retired: set[Digest] = field(default_factory=set)
    stable: Digest | None = None
    canary: Digest | None = None
    share: float = 0.0
    before: list[Digest] = field(default_factory=list)
    rolled_back: bool = False
    shifted_to_all: bool = False
    alias: Digest | None = None

    def moved(self, *, back: bool = False, to_all: bool = False) -> None:
        self.rolled_back, self.shifted_to_all = back, to_all

    def is_usable(self, digest: Digest) -> bool:
        return digest not in self.gone and digest not in self.retired

    def last_usable(self) -> Digest | None:
        usable = (d for d in reversed(self.before) if d != self.stable and self.is_usable(d))
        return next(usable, None)

    def go_back(self, to: Digest) -> None:
        while self.before.pop() != to:
            pass
        self.stable = to

    def settle(self, digest: Digest) -> None:
        if self.stable is not None and self.stable != digest:
            self.before.append(self.stable)
        self.stable, self.canary, self.share = digest, None, 0.0

    def release(self, digest: Digest, share: float) -> str:
        is_all = self.stable == digest and self.canary is None
        if (share == 1 and is_all) or (share < 1 and (self.canary, self.share) == (digest, share)):
            return "already"
        if self.stable is None and share < 1:
            return "refused"
        if self.canary not in (None, digest) or self.stable == digest:
            return "refused"
        if share == 1:
            self.settle(digest)
        else:
            self.canary, self.share = digest, share
        self.moved()
        return "done"

    def shift(self, share: float) -> str:
        if self.stable is None:
            return "refused"
        if self.canary is None:
            return "already" if share == 1 and self.shifted_to_all else "refused"
        if self.share == share:
            return "already"
        if share == 1:
            self.settle(self.canary)
        else:
            self.share = share
        self.moved(to_all=share == 1)
        return "done"

    def rollback(self) -> str:
        if self.stable is None:
            return "refused"
        if self.canary is not None:
            self.canary, self.share = None, 0.0
        elif self.rolled_back:
            return "already"
        elif (to := self.last_usable()) is not None:
            self.go_back(to)
        else:
            return "refused"
        self.moved(back=True)
        return "done"

    def rollback_to(self, digest: Digest) -> str:
        if self.stable is None or not self.is_usable(digest):
            return "refused"
        if digest == self.stable:
            if self.canary is None:
                return "already"
        elif digest in self.before:
            self.go_back(digest)
        else:
            return "refused"
        self.canary, self.share = None, 0.0
        self.moved(back=True)
        return "done"

    def revoke(self, digest: Digest) -> str:
        if digest in self.gone:
            return "already"
        self.gone.add(digest)
        if self.stable == digest:
            to = self.last_usable()
            self.canary, self.share = None, 0.0
            if to is None:
                self.stable, self.before = None, []
            else:
                self.go_back(to)
            self.moved()
        elif self.canary == digest:
            self.canary, self.share = None, 0.0
            self.moved()
        return "done"

    def retire(self, digest: Digest) -> str:
        if digest in self.gone:
            return "refused"
        if digest in self.retired:
            return "already"
        if digest in (self.stable, self.canary, self.alias):
            return "refused"
        self.retired.add(digest)
        return "done"

    def set_alias(self, digest: Digest) -> str:
        if not self.is_usable(digest):
            return "refused"
        if self.alias == digest:
            return "already"
        self.alias = digest
        return "done"


class RegistryMachine(RuleBasedStateMachine):
    """Commands at random, given to the registry's rules and to the bookkeeper."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(BaseDeclared(BASE))
        self.books = {name: Book() for name in NAMES}
        for name in 3 * NAMES:  # deep situations need something to release from the start
            self.publish_next(name)

    def command(self, choose: Callable[[State], Decision], said: str) -> None:
        """Both have to say the same; a command that is given again changes nothing."""
        before = self.log.state
        refusal, decision = None, None
        try:
            decision = choose(self.log.state)
        except ForewordError as e:
            refusal = e
        assert (refusal is not None) == (said == "refused"), refusal or decision
        if decision is None:
            return
        if isinstance(decision, Already):
            assert said == "already"
            assert 1 <= decision.seq <= self.log.head.seq
            return
        assert said == "done", decision
        entry = self.log.add(decision)
        assert choose(self.log.state) == Already(entry.seq)
        assert before.head.seq == entry.seq - 1  # a state is a value: the old one is as it was

    def known(self, name: str, number: int) -> Digest | None:
        versions = self.books[name].versions
        return versions[number % len(versions)] if versions else None

    def of_version(
        self, name: str, number: int, choose: Callable[[State, ByDigest], Decision],
        book: Callable[[Book, Digest], str],
    ) -> None:  # fmt: skip
        digest = self.known(name, number)
        if digest is not None:
            self.command(lambda s: choose(s, ByDigest(digest)), book(self.books[name], digest))

    @precondition(lambda self: min(len(book.versions) for book in self.books.values()) < 6)
    @rule(name=SOME_NAME)
    def publish(self, name: str) -> None:
        self.publish_next(name)

    def publish_next(self, name: str) -> None:
        book = self.books[name]
        new = facts(f"1.{len(book.versions)}.0", name)
        book.versions.append(new.digest)
        self.command(lambda s: decide.publish(s, new, (claim(),)), "done")

    @rule(name=SOME_NAME, number=NUMBERS)
    def publish_again(self, name: str, number: int) -> None:
        book = self.books[name]
        if book.versions:
            again = facts(f"1.{number % len(book.versions)}.0", name)
            said = "already" if book.is_usable(again.digest) else "refused"
            self.command(lambda s: decide.publish(s, again, (claim(),)), said)

    @rule(name=SOME_NAME, number=NUMBERS, share=SHARES)
    def release(self, name: str, number: int, share: float) -> None:
        self.give(name, number, share)

    def give(self, name: str, number: int, share: float) -> None:
        self.of_version(
            name,
            number,
            lambda s, ref: decide.release(s, ref, share, 0),
            lambda book, d: book.release(d, share) if book.is_usable(d) else "refused",
        )

    @rule(name=SOME_NAME, number=NUMBERS)
    def make_stable(self, name: str, number: int) -> None:
        self.give(name, number, 1.0)

    @rule(name=SOME_NAME, share=SHARES)
    def shift(self, name: str, share: float) -> None:
        self.command(lambda s: decide.shift(s, name, share), self.books[name].shift(share))

    @rule(name=SOME_NAME)
    def rollback(self, name: str) -> None:
        self.command(lambda s: decide.rollback(s, name), self.books[name].rollback())

    @rule(name=SOME_NAME, number=NUMBERS)
    def rollback_to(self, name: str, number: int) -> None:
        self.of_version(
            name, number, lambda s, ref: decide.rollback(s, name, ref), Book.rollback_to
        )

    @precondition(lambda self: self.log.head.seq > 12)
    @rule(name=SOME_NAME, number=NUMBERS)
    def revoke(self, name: str, number: int) -> None:
        self.of_version(name, number, lambda s, ref: decide.revoke(s, ref, "bad"), Book.revoke)

    @precondition(lambda self: self.log.head.seq > 16)
    @rule(name=SOME_NAME, number=NUMBERS)
    def retire(self, name: str, number: int) -> None:
        self.of_version(name, number, decide.retire, Book.retire)

    @rule(name=SOME_NAME, number=NUMBERS)
    def alias(self, name: str, number: int) -> None:
        self.of_version(name, number, lambda s, ref: decide.alias(s, "next", ref), Book.set_alias)

    @invariant()
    def the_registry_says_what_the_book_says(self) -> None:
        for name, book in self.books.items():
            known = self.log.state.names.get(name)
            if known is None:
                assert not book.versions
                continue
            release = known.release
            assert list(known.versions) == book.versions
            assert (release.stable if release else None) == book.stable
            assert (release.canary if release else None) == book.canary
            assert (release.share if release else 0.0) == book.share
            assert list(known.history) == book.before
            alias = known.aliases.get("next")
            assert (alias.digest if alias else None) == book.alias
            statuses = {d: self.log.state.versions[d].status for d in book.versions}
            assert {d for d, status in statuses.items() if status == "revoked"} == book.gone
            assert {d for d, s in statuses.items() if s == "retired"} == book.retired - book.gone

    @invariant()
    def nothing_that_may_not_be_used_serves(self) -> None:
        for known in self.log.state.names.values():
            if known.release:
                for digest in filter(None, (known.release.stable, known.release.canary)):
                    assert self.log.state.versions[digest].status == "live"

    @invariant()
    def a_generation_is_the_last_entry_about_a_name(self) -> None:
        for name in NAMES:
            about = [entry.seq for entry in self.log.entries if entry.event.name == name]
            assert self.log.state.generation(name) == max(about, default=0)

    def teardown(self) -> None:
        """Folding all at once, or in two parts, leads to the same state as one by one."""
        entries = self.log.entries
        assert fold(State(), entries) == self.log.state
        for cut in range(0, len(entries), 7):
            assert fold(fold(State(), entries[:cut]), entries[cut:]) == self.log.state


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


# Looking.


@pytest.fixture
def state() -> State:
    log = Log(BaseDeclared(BASE))
    for name in ("support", "acme/support", "acme/sales", "acme-2/support", "beta/x"):
        log.add(Published(facts("1.0.0", name), (claim(),)))
    return log.state


def test_a_page_is_in_order_and_the_next_begins_where_it_ended(state: State) -> None:
    names = ["acme-2/support", "acme/sales", "acme/support", "beta/x", "support"]
    assert [known.name for known in state.page("", "", 10)] == names
    for limit in (1, 2, 3):
        seen: list[str] = []
        while page := state.page("", seen[-1] if seen else "", limit):
            assert len(page) <= limit
            seen += [known.name for known in page]
        assert seen == names


def test_a_page_of_a_tenant_holds_no_other_tenant(state: State) -> None:
    assert [known.name for known in state.page("acme/", "", 9)] == ["acme/sales", "acme/support"]
    assert [known.name for known in state.page("acme/", "acme/sales", 9)] == ["acme/support"]
    assert [known.name for known in state.page("acme/", "beta/x", 9)] == []
    assert [known.name for known in state.page("acme/", "a", 9)] == ["acme/sales", "acme/support"]
    assert [known.name for known in state.page("support", "", 9)] == ["support"]
    assert state.page("zebra", "", 9) == ()


def test_every_way_to_name_a_version_finds_it() -> None:
    log = Log(BaseDeclared(BASE))
    first, second, third = (facts(f"{n}.0.0") for n in (1, 2, 3))
    for each in (first, second, third):
        log.add(Published(each, (claim(),)))
    log.add(Released(NAME, first.digest, 1))
    log.add(Released(NAME, second.digest, 0.5))
    log.add(Aliased(NAME, "next", third.digest))
    for text, expected in {
        NAME: first, f"{NAME}@stable": first, f"{NAME}@canary": second, f"{NAME}@next": third,
        f"{NAME}@2.0.0": second, str(third.digest): third,
    }.items():  # fmt: skip
        assert log.state.find(parse_reference(text)).facts == expected
        assert log.state.live(parse_reference(text)).facts == expected


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("acme/suport", "registry.name_unknown", "did you mean 'acme/support'"),
        ("acme/support@2.0.0", "registry.version_unknown", "newest of 1 versions is 1.0.0"),
        ("acme/support", "registry.not_released", "foreword registry release"),
        ("acme/support@canary", "registry.no_canary", "no canary"),
        ("acme/support@next", "registry.alias_unknown", "it has stable"),
        ("sha256:" + "0" * 64, "registry.digest_unknown", "no version"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    state: State, text: str, code: str, hint: str
) -> None:
    with pytest.raises(NotFound, match=hint) as caught:
        state.find(parse_reference(text))
    assert caught.value.code == code


def test_what_was_taken_back_is_found_but_not_used() -> None:
    version = facts()
    log = Log(BaseDeclared(BASE), Published(version, (claim(),)))
    log.add(Retired(NAME, version.digest), by(reason="too old"))
    reference = ByVersion(NAME, "1.0.0")
    assert log.state.find(reference).status == "retired"
    with pytest.raises(RegistryError, match="too old") as caught:
        log.state.live(reference)
    assert caught.value.code == "registry.retired"


def test_bases_that_were_withdrawn_are_not_run_here() -> None:
    log = Log(BaseDeclared(OTHER_BASE), BaseDeclared(BASE))
    assert log.state.bases == (OTHER_BASE, BASE)
    log.add(BaseWithdrawn(OTHER_BASE.id))
    assert log.state.bases == (BASE,)
    log.add(BaseDeclared(OTHER_BASE))
    assert log.state.bases == (OTHER_BASE, BASE)


@pytest.mark.parametrize(
    "event",
    [
        Approved("acme/nobody", Digest.of(b"nothing")),
        Released("acme/nobody", Digest.of(b"nothing"), 1),
        RolledBack("acme/nobody", Digest.of(b"a"), Digest.of(b"b")),
        BaseWithdrawn("nothing"),
    ],
)
def test_an_entry_about_nothing_is_refused_not_skipped(event: Approved) -> None:
    log = Log(BaseDeclared(BASE))
    with pytest.raises(RegistryError) as caught:
        log.add(event)
    assert caught.value.code == "registry.entry"


def test_a_rollback_of_a_canary_keeps_the_way_back() -> None:
    # The stable version was stable before as well; that must not be taken for the way back.
    a, b, c = (facts(f"{n}.0.0").digest for n in (1, 2, 3))
    log = Log(BaseDeclared(BASE), *(Published(facts(f"{n}.0.0"), ()) for n in (1, 2, 3)))
    for event in (Released(NAME, a, 1), Released(NAME, b, 1), Released(NAME, a, 1)):
        log.add(event)
    log.add(Released(NAME, c, 0.5))
    log.add(RolledBack(NAME, c, a))
    assert log.state.name(NAME).history == (a, b)
    assert log.state.find(ByName(NAME)).digest == a
