"""The release table: what follows from the journal, and what a change costs."""

from __future__ import annotations

import time

import pytest

from foreword.artifact import Digest
from foreword.registry.entries import (
    Aliased,
    Published,
    Released,
    Retired,
    Revoked,
    RolledBack,
    Shifted,
)
from foreword.registry.references import parse_reference
from foreword.registry.state import State
from foreword.serving.gateway.routing.table import ReleaseTable, advance, changed
from tests.gateway.routing.made import alias, published, released, table_of
from tests.registry.samples import Log, claim, facts

NAME = "acme/support"


def digest(version: str, name: str = NAME) -> Digest:
    return facts(version, name).digest


@pytest.mark.parametrize(
    ("text", "version", "arm"),
    [
        (NAME, "1.0.0", "stable"),
        (f"{NAME}@stable", "1.0.0", "stable"),
        (f"{NAME}@canary", "2.0.0", "canary"),
        (f"{NAME}@1.0.0", "1.0.0", "pinned"),
        (f"{NAME}@2.0.0", "2.0.0", "pinned"),
        (f"{NAME}@night", "2.0.0", "pinned"),
        (str(digest("2.0.0")), "2.0.0", "pinned"),
    ],
)
def test_every_form_of_a_reference_finds_its_version(text: str, version: str, arm: str) -> None:
    log = released(NAME, canary=1e-9)
    alias(log, "night", "2.0.0", NAME)
    choice = table_of(log).find(parse_reference(text), "a key")
    assert choice is not None
    assert (choice.known.digest, choice.known.version, choice.arm) == (
        digest(version), version, arm,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "acme/other", f"{NAME}@9.9.9", f"{NAME}@night", f"{NAME}@canary", "acme/fresh",
        "acme/fresh@stable", str(Digest.of(b"nobody's")),
    ],
)  # fmt: skip
def test_what_means_nothing_finds_nothing(text: str) -> None:
    log = released(NAME)
    log.add(Published(facts("1.0.0", "acme/fresh"), (claim(),)))
    alias(log, "night", "2.0.0", NAME)
    log.add(Aliased(NAME, "night", None))
    assert table_of(log).find(parse_reference(text), "") is None


def test_what_was_revoked_or_retired_is_known_but_not_served() -> None:
    log = published(NAME, versions=("1.0.0", "2.0.0", "3.0.0"))
    log.add(Revoked(NAME, digest("1.0.0"), None))
    log.add(Retired(NAME, digest("2.0.0")))
    table = table_of(log)
    assert [table.versions[digest(v)].status for v in ("1.0.0", "2.0.0", "3.0.0")] == [
        "revoked", "retired", "live",
    ]  # fmt: skip
    assert [table.serves(digest(v)) for v in ("1.0.0", "2.0.0", "3.0.0")] == [False, False, True]
    assert not table.serves(Digest.of(b"nobody's"))


def test_a_table_made_step_by_step_is_the_table_made_at_once() -> None:
    log, table, before = Log(), ReleaseTable(), State()
    whole = released(NAME, "acme/sales", "zebra/sales", canary=0.25)
    whole.add(Shifted(NAME, digest("2.0.0"), 0.5))
    whole.add(Revoked("zebra/sales", digest("2.0.0", "zebra/sales"), None))
    whole.add(RolledBack(NAME, digest("2.0.0"), digest("1.0.0")))
    for entry in whole.entries:
        log.add(entry.event)
        table = advance(table, log.state, changed(before, log.state), {})
        before = log.state
        assert table.seq == entry.seq
    assert table == advance(ReleaseTable(), whole.state, whole.state.names, {})
    assert table.order == ("acme/sales", NAME, "zebra/sales")


def test_a_held_name_serves_what_it_did_and_knows_its_new_version() -> None:
    log = released(NAME)
    before = table_of(log)
    log.add(Released(NAME, digest("2.0.0"), 1))
    after = advance(before, log.state, [NAME], {NAME: before.names[NAME].release})
    assert after.seq == before.seq + 1
    stable = after.find(parse_reference(NAME), "")
    pinned = after.find(parse_reference(f"{NAME}@2.0.0"), "")
    assert stable is not None
    assert stable.known.version == "1.0.0"
    assert pinned is not None
    assert pinned.known.version == "2.0.0"


def test_a_table_that_somebody_has_never_changes() -> None:
    log = released(NAME)
    table = table_of(log)
    log.add(Released(NAME, digest("2.0.0"), 1))
    advance(table, log.state, [NAME], {})
    kept = table.find(parse_reference(NAME), "")
    assert kept is not None
    assert kept.known.version == "1.0.0"
    with pytest.raises(TypeError):
        table.names["acme/new"] = table.names[NAME]  # type: ignore[index]


def test_one_change_among_ten_thousand_names_costs_little() -> None:
    names = [f"tenant{i % 100:02}/prefix{i:04}" for i in range(10_000)]
    log = published(*names, versions=("1.0.0",))
    table = advance(ReleaseTable(), log.state, list(log.state.names), {})
    taken = []
    for name in names[:20]:
        before = log.state
        log.add(Released(name, digest("1.0.0", name), 1))
        begin = time.perf_counter()
        table = advance(table, log.state, changed(before, log.state), {})
        taken.append(time.perf_counter() - begin)
    assert sorted(taken)[10] < 0.02
    assert sum(named.release is not None for named in table.names.values()) == 20
