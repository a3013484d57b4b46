"""The whole way, on every pair of database and blob store: publish, release, take back."""

from __future__ import annotations

import threading

import pytest

from foreword.errors import Conflict, NotFound, RegistryError
from foreword.registry.layout import Layout
from foreword.registry.registry import Registry
from foreword.registry.state import State, fold
from foreword.signing.verify import VerifiedArtifact
from tests.registry.samples import (
    BASE,
    NAME,
    NOW,
    OTHER_BASE,
    POLICY,
    attested,
    by,
    give,
    key,
    publish,
    sample,
    signed,
)


def test_a_version_goes_all_the_way_and_back(place: Layout) -> None:
    with Registry.open(place.directory) as registry:
        one, two = publish(registry), publish(registry, "2.0.0")
        registry.release(f"{NAME}@1.0.0", policy=POLICY, by=by("ana"))
        registry.approve(f"{NAME}@2.0.0", by=by("bob"))
        registry.release(f"{NAME}@2.0.0", 0.1, policy=POLICY, by=by("bob"))
        registry.shift(NAME, 0.5, policy=POLICY, by=by("robot"))
        registry.alias("next", f"{NAME}@canary", by=by())
        assert registry.resolve(NAME).digest == one.digest
        assert registry.resolve(f"{NAME}@next").digest == two.digest
        registry.shift(NAME, 1, policy=POLICY, by=by("robot"))
        assert registry.resolve(NAME).digest == two.digest
        registry.rollback(NAME, by=by("on call", "it hurts"))
        registry.revoke(f"{NAME}@2.0.0", by=by("on call", "it leaks"))
        seen = registry.state
    # Everything again, by somebody who was not there.
    with Registry.open(place.directory) as registry:
        assert registry.refresh() == seen
        assert registry.resolve(NAME).digest == one.digest
        assert [entry.kind for entry in registry.log()] == [
            "base_declared", "published", "published", "released", "approved", "released", "shifted",
            "aliased", "shifted", "rolled_back", "revoked",
        ]  # fmt: skip
        assert [entry.actor for entry in registry.log(NAME)][-2:] == ["on call", "on call"]
        with pytest.raises(RegistryError, match="it leaks") as caught:
            registry.fetch(two.digest, POLICY, NOW)
        assert caught.value.code == "registry.revoked"


def test_what_is_fetched_is_what_was_published(registry: Registry) -> None:
    artifact = publish(registry)
    verified = registry.fetch(artifact.digest, POLICY, NOW)
    assert isinstance(verified, VerifiedArtifact)
    assert verified.artifact == artifact
    assert verified.signers == (key("ana").id,)
    assert registry.manifest(artifact.digest) == artifact.manifest


def test_publishing_again_gives_the_same_entry(place: Layout) -> None:
    artifact = sample(version="1.0.0")
    envelope = signed(artifact, key("ana"))
    entries = []
    for seconds in range(3):
        with Registry.open(place.directory) as registry:
            registry.declare_base(BASE, by=by())
            entries.append(give(registry, artifact, envelope, who=by(seconds=seconds)))
    assert entries[0] == entries[1] == entries[2]
    with Registry.open(place.directory) as registry:
        assert len(list(registry.log(NAME))) == 1
        assert len(list(registry.blobs.stored())) == 3


def test_every_command_can_be_given_again(registry: Registry) -> None:
    publish(registry)
    publish(registry, "2.0.0")
    extra = attested(sample(version="2.0.0"), key("ana"))
    commands = [
        lambda: registry.attest(f"{NAME}@2.0.0", extra, policy=POLICY, by=by()),
        lambda: registry.approve(f"{NAME}@2.0.0", by=by()),
        lambda: registry.release(f"{NAME}@1.0.0", policy=POLICY, by=by()),
        lambda: registry.release(f"{NAME}@2.0.0", 0.2, policy=POLICY, by=by()),
        lambda: registry.shift(NAME, 0.4, policy=POLICY, by=by()),
        lambda: registry.shift(NAME, 1.0, policy=POLICY, by=by()),
        lambda: registry.rollback(NAME, by=by()),
        lambda: registry.alias("next", f"{NAME}@2.0.0", by=by()),
        lambda: registry.unalias(NAME, "next", by=by()),
        lambda: registry.retire(f"{NAME}@2.0.0", by=by()),
        lambda: registry.revoke(f"{NAME}@2.0.0", by=by()),
        lambda: registry.declare_base(OTHER_BASE, by=by()),
        lambda: registry.withdraw_base(OTHER_BASE.id, by=by()),
    ]
    for command in commands:
        entry = command()
        assert entry == registry.journal.entry(registry.state.head.seq)
        assert command() == entry
        assert command() == entry
    assert registry.state.head.seq == 3 + len(commands)


def test_a_stale_view_is_a_conflict_not_a_lost_update(place: Layout) -> None:
    with Registry.open(place.directory) as ana, Registry.open(place.directory) as bob:
        for version in ("1.0.0", "2.0.0", "3.0.0"):
            publish(ana, version)
        seen = ana.show(NAME).generation
        assert bob.show(NAME).generation == seen
        ana.release(f"{NAME}@1.0.0", policy=POLICY, by=by("ana"), expect=seen)
        for late in (
            lambda: bob.release(f"{NAME}@2.0.0", policy=POLICY, by=by("bob"), expect=seen),
            # Refused in itself now; but what bob has to know is that somebody was faster.
            lambda: bob.retire(f"{NAME}@1.0.0", by=by("bob"), expect=seen),
            lambda: bob.revoke(f"{NAME}@2.0.0", by=by("bob"), expect=seen),
        ):
            with pytest.raises(Conflict) as caught:
                late()
            assert caught.value.code == "registry.generation"
        # What ana wanted is so already, whoever asks for it.
        bob.release(f"{NAME}@1.0.0", policy=POLICY, by=by("bob"), expect=seen)
        now = bob.show(NAME).generation
        assert now == bob.state.head.seq
        bob.release(f"{NAME}@2.0.0", policy=POLICY, by=by("bob"), expect=now)
        assert ana.resolve(NAME).version.version == "2.0.0"


def test_a_new_name_has_generation_0(registry: Registry) -> None:
    registry.declare_base(BASE, by=by())
    artifact = sample(version="1.0.0")
    with pytest.raises(Conflict):
        give(registry, artifact, signed(artifact, key("ana")), expect=5)
    give(registry, artifact, signed(artifact, key("ana")), expect=0)


def test_writers_at_once_all_succeed_and_lose_nothing(place: Layout) -> None:
    with Registry.open(place.directory) as registry:
        publish(registry)
    failed: list[BaseException] = []

    def work(who: int) -> None:
        try:
            with Registry.open(place.directory) as registry:
                artifact = publish(registry, name=f"acme/n{who}")
                for i in range(3):
                    registry.alias(f"a{i}", f"acme/n{who}@1.0.0", by=by(f"w{who}"))
                registry.approve(f"{NAME}@1.0.0", by=by(f"w{who}"))
                registry.fetch(artifact.digest, POLICY, NOW)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with Registry.open(place.directory) as registry:
        state = registry.refresh()
        assert state.head.seq == 2 + 4 * 5
        assert state == fold(State(), registry.log())
        assert len(state.versions[state.numbers[NAME, "1.0.0"]].approvals) == 4
        for who in range(4):
            assert len(state.name(f"acme/n{who}").aliases) == 3


def test_a_damaged_or_missing_blob_is_never_used(registry: Registry) -> None:
    artifact = publish(registry)
    for digest in registry.state.version(artifact.digest).blobs:
        bytes_of = registry.blobs.get(digest, 1 << 20)
        registry.blobs.delete(digest)
        for use in (
            lambda: registry.fetch(artifact.digest, POLICY, NOW),
            lambda: registry.release(str(artifact.digest), policy=POLICY, by=by()),
        ):
            with pytest.raises(NotFound) as caught:
                use()
            assert caught.value.code == "registry.blob_missing"
        registry.blobs.put(bytes_of)
    registry.release(str(artifact.digest), policy=POLICY, by=by())


def test_publishing_again_brings_back_what_was_lost(registry: Registry) -> None:
    artifact = publish(registry)
    for digest in registry.state.version(artifact.digest).blobs:
        registry.blobs.delete(digest)
    publish(registry)
    assert registry.fetch(artifact.digest, POLICY, NOW).artifact == artifact
    assert len(list(registry.log(NAME))) == 1
