"""What waits until it is warm, and what takes effect at once."""

from __future__ import annotations

from foreword.artifact import Digest
from foreword.registry.entries import Event, Released, Revoked, RolledBack, Shifted
from foreword.registry.releases import Release
from foreword.serving.gateway.routing.followed import (
    MOST_HELD,
    Followed,
    IsWarm,
    ended,
    follow,
    moved,
    settle,
)
from foreword.serving.gateway.routing.warm import WARM_SECONDS
from tests.gateway.routing.made import HERE, published, released, table_of
from tests.registry.samples import OTHER_BASE, Log, facts

NAME = "acme/support"
NOW = 100.0


def digest(version: str, name: str = NAME) -> Digest:
    return facts(version, name).digest


V1, V2, V3, V4 = (digest(f"{number}.0.0") for number in (1, 2, 3, 4))


def cold(_digest: Digest) -> bool:
    return False


def warm(*digests: Digest) -> IsWarm:
    return lambda digest: digest in digests


def log_of(*events: Event) -> Log:
    log = published(NAME, versions=("1.0.0", "2.0.0", "3.0.0", "4.0.0"))
    for event in events:
        log.add(event)
    return log


def begun(log: Log) -> Followed:
    return follow(Followed(), log.state, HERE, cold, NOW)[0]


def after(
    before: Followed, log: Log, *events: Event, is_warm: IsWarm = cold, now: float = NOW
) -> Followed:
    for event in events:
        log.add(event)
    return follow(before, log.state, HERE, is_warm, now)[0]


def served(known: Followed, name: str = NAME) -> Release | None:
    return known.table.names[name].release


def test_the_first_table_waits_for_nothing() -> None:
    known = begun(log_of(Released(NAME, V1, 1)))
    assert served(known) == Release(NAME, V1)
    assert not known.held


def test_a_new_stable_version_waits_until_it_is_warm() -> None:
    log = log_of(Released(NAME, V1, 1))
    known = after(begun(log), log, Released(NAME, V2, 1))
    assert served(known) == Release(NAME, V1)
    assert known.held[NAME].missing == {V2}
    assert settle(known, cold, NOW + WARM_SECONDS / 2) is known
    settled = settle(known, warm(V2), NOW + 0.1)
    assert served(settled) == Release(NAME, V2)
    assert not settled.held


def test_a_version_that_never_gets_warm_is_served_in_time_all_the_same() -> None:
    log = log_of(Released(NAME, V1, 1))
    known = after(begun(log), log, Released(NAME, V2, 1))
    assert served(settle(known, cold, NOW + WARM_SECONDS)) == Release(NAME, V2)
    assert WARM_SECONDS + 0.25 < 1


def test_a_release_that_is_warm_already_does_not_wait() -> None:
    log = log_of(Released(NAME, V1, 1))
    known = after(begun(log), log, Released(NAME, V2, 1), is_warm=warm(V2))
    assert served(known) == Release(NAME, V2)


def test_a_canary_waits_and_its_share_does_not() -> None:
    log = log_of(Released(NAME, V1, 1))
    known = after(begun(log), log, Released(NAME, V2, 0.1))
    assert served(known) == Release(NAME, V1)
    known = settle(known, warm(V2), NOW)
    known = after(known, log, Shifted(NAME, V2, 0.5), is_warm=warm(V1, V2))
    assert served(known) == Release(NAME, V1, V2, 0.5)
    known = after(known, log, Shifted(NAME, V2, 1), is_warm=warm(V1, V2))
    assert served(known) == Release(NAME, V2)


def test_a_rollback_takes_effect_at_once_although_what_it_goes_back_to_is_cold() -> None:
    log = log_of(Released(NAME, V1, 1), Released(NAME, V2, 1))
    known = after(begun(log), log, RolledBack(NAME, V2, V1))
    assert served(known) == Release(NAME, V1)


def test_a_rollback_to_what_was_stable_twice_takes_effect_at_once() -> None:
    log = log_of(Released(NAME, V2, 1), Released(NAME, V1, 1), Released(NAME, V2, 1))
    known = after(begun(log), log, RolledBack(NAME, V2, V1))
    assert served(known) == Release(NAME, V1)


def test_of_a_remembered_table_only_the_prompts_are_used_once_the_journal_is_read() -> None:
    remembered = table_of(released(NAME, "acme/other"))
    known = follow(Followed(table=remembered), log_of().state, HERE, cold, NOW)[0]
    assert list(known.table.names) == [NAME]
    assert served(known) is None
    assert known.table.prompts == remembered.prompts


def test_a_revocation_takes_effect_at_once_and_is_told() -> None:
    log = log_of(Released(NAME, V1, 1), Released(NAME, V2, 1))
    before = begun(log)
    known = after(before, log, Revoked(NAME, V2, V1))
    assert served(known) == Release(NAME, V1)
    assert ended(before.table, known.table, [NAME]) == [V2]
    assert moved(before.table, known.table, [NAME]) == [NAME]


def test_a_revocation_of_what_waits_and_of_what_serves_meanwhile() -> None:
    log = log_of(Released(NAME, V1, 1))
    waiting = after(begun(log), log, Released(NAME, V2, 1))
    one = after(waiting, log, Revoked(NAME, V2, V1))
    assert served(one) == Release(NAME, V1)
    assert not one.held
    log = log_of(Released(NAME, V1, 1))
    waiting = after(begun(log), log, Released(NAME, V2, 1))
    other = after(waiting, log, Revoked(NAME, V1, None))
    assert served(other) == Release(NAME, V2)
    assert not other.held


def test_what_was_taken_back_is_not_served_while_its_successor_warms() -> None:
    """Between two looks at the journal a rollback and another release may both have happened."""
    log = log_of(Released(NAME, V1, 1), Released(NAME, V2, 1))
    known = after(begun(log), log, RolledBack(NAME, V2, V1), Released(NAME, V3, 1))
    assert served(known) == Release(NAME, V3)
    log = log_of(Released(NAME, V1, 1), Released(NAME, V2, 1))
    known = after(begun(log), log, Revoked(NAME, V2, V1), Released(NAME, V3, 1))
    assert served(known) == Release(NAME, V3)


def test_a_canary_that_another_one_replaces_ends_at_once() -> None:
    log = log_of(Released(NAME, V1, 1), Released(NAME, V2, 0.5))
    known = after(begun(log), log, Released(NAME, V3, 0.5))
    assert served(known) == Release(NAME, V1)
    assert known.held[NAME].missing == {V3}


def test_one_release_after_another_does_not_keep_a_name_waiting() -> None:
    log = log_of(Released(NAME, V1, 1))
    known = after(begun(log), log, Released(NAME, V2, 1))
    known = after(known, log, Released(NAME, V3, 1), now=NOW + 0.5)
    assert served(known) == Release(NAME, V1)
    assert served(settle(known, cold, NOW + WARM_SECONDS)) == Release(NAME, V3)


def test_a_first_release_waits_too_and_is_not_there_meanwhile() -> None:
    log = log_of()
    known = after(begun(log), log, Released(NAME, V1, 1))
    assert served(known) is None
    assert served(settle(known, warm(V1), NOW)) == Release(NAME, V1)


def test_nothing_waits_for_a_prefix_that_this_base_cannot_load() -> None:
    log = published(NAME, versions=("1.0.0", "2.0.0"), base=OTHER_BASE.ref)
    first, second = log.state.names[NAME].versions
    log.add(Released(NAME, first, 1))
    known = after(begun(log), log, Released(NAME, second, 1))
    assert served(known) == Release(NAME, second)


def test_many_releases_at_once_do_not_all_wait() -> None:
    names = [f"acme/p{i}" for i in range(MOST_HELD + 20)]
    log = published(*names, versions=("1.0.0",))
    known = after(begun(log), log, *(Released(name, digest("1.0.0", name), 1) for name in names))
    assert len(known.held) == MOST_HELD
    assert sum(named.release is not None for named in known.table.names.values()) == 20


def test_other_names_are_served_as_they_are_while_one_waits() -> None:
    other = "acme/other"
    log = published(NAME, other, versions=("1.0.0", "2.0.0"))
    log.add(Released(NAME, V1, 1))
    known = after(begun(log), log, Released(NAME, V2, 1))
    known = after(
        known, log, Released(other, digest("1.0.0", other), 1), is_warm=warm(digest("1.0.0", other))
    )
    assert served(known) == Release(NAME, V1)
    assert served(known, other) == Release(other, digest("1.0.0", other))
    assert known.table.seq == log.head.seq
