"""R11: the attacks that The Update Framework lists (https://theupdateframework.io/docs/security/).

One test each, as far as signatures and a pinned policy can stop it. Where the attacker replays what was
rightly signed once, freshness comes from the policy (floors, expiry, revocations) or from the registry's
journal; a comment says which.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from foreword.artifact import Artifact, canonical
from foreword.artifact.package import ENVELOPES, MANIFEST, TENSORS
from foreword.errors import ArtifactError, ForewordError, TrustError
from foreword.signing import store
from foreword.signing.envelope import sign
from foreword.signing.policy import TrustedKey, TrustPolicy
from foreword.signing.statement import Statement
from foreword.signing.verify import VerifiedArtifact
from tests.artifact.samples import SPECS, numbers, sample
from tests.signing.made import NOW, attested, envelope, key, policy, signed

DAY = timedelta(days=1)
ME, YOU, MALLORY = key("me"), key("you"), key("mallory")
OLD = sample(version="1.2.2", tensors={spec.name: numbers(spec, 5.0) for spec in SPECS})
NEW = sample()
EVIL = sample(version="9.9.9", training={"data": "poisoned"})


def delivered(path: Path, artifact: Artifact, *envelopes: bytes) -> Path:
    """What lies on a disk after a download."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / MANIFEST).write_bytes(artifact.manifest_bytes)
    (path / TENSORS).write_bytes(artifact.tensor_bytes)
    _lines(path, *envelopes)
    return path


def opened(path: Path, trusting: TrustPolicy, *, days: float = 0) -> VerifiedArtifact:
    return store.open_verified(path, trusting, NOW + days * DAY)


def refusal(path: Path, trusting: TrustPolicy, *, days: float = 0) -> str:
    with pytest.raises((TrustError, ArtifactError)) as caught:
        opened(path, trusting, days=days)
    return caught.value.code


def test_arbitrary_installation(tmp_path: Path) -> None:
    path = tmp_path / "made"
    assert refusal(delivered(path, EVIL), policy(ME)) == "trust.unsigned"
    assert refusal(delivered(path, EVIL, signed(EVIL, MALLORY)), policy(ME)) == "trust.unknown_key"
    assert refusal(delivered(path, EVIL, signed(NEW, ME)), policy(ME)) == "trust.subject"
    assert opened(delivered(path, NEW, signed(NEW, ME)), policy(ME)).artifact == NEW


def test_rollback(tmp_path: Path) -> None:
    # Rightly signed and old: a signature alone cannot tell. The registry knows which versions there are
    # and lets them only grow; who has no registry pins a floor.
    path = delivered(tmp_path / "made", OLD, signed(OLD, ME))
    assert opened(path, policy(ME)).artifact == OLD
    pinned = policy(ME, floors={"acme/support": "1.2.3"})
    assert refusal(path, pinned) == "trust.floor"
    assert opened(delivered(path, NEW, signed(NEW, ME)), pinned).artifact == NEW


def test_rollback_after_all_local_state_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = delivered(tmp_path / "made", OLD, signed(OLD, ME))
    pinned = tmp_path / "image" / "trust.toml"  # comes with the deployment, not from the mirror
    store.save_policy(policy(ME, floors={"acme/support": "1.2.3"}), pinned)
    home = tmp_path / "home"
    monkeypatch.setenv("FOREWORD_HOME", str(home))
    for _ in range(2):
        assert refusal(path, store.load_policy(pinned)) == "trust.floor"
        shutil.rmtree(home, ignore_errors=True)


def test_fast_forward(tmp_path: Path) -> None:
    # A stolen key signs the highest version there can be. Nothing is learnt from what is verified, so
    # after the key is revoked the next honest version counts again. (In the registry a withdrawn
    # version stays in the journal; revoking it there frees the release, not the number.)
    path = tmp_path / "made"
    highest = sample(version="999999999.0.0")
    both = policy(ME, MALLORY)
    assert opened(delivered(path, highest, signed(highest, MALLORY)), both).artifact == highest
    without = both.with_status(MALLORY.id, "revoked")
    assert refusal(path, without) == "trust.key_revoked"
    assert opened(delivered(path, NEW, signed(NEW, ME)), without).artifact == NEW


def test_indefinite_freeze(tmp_path: Path) -> None:
    # Somebody keeps newer policies (with their revocations) away: noticed when this one expires.
    path = delivered(tmp_path / "made", NEW, signed(NEW, ME))
    weekly = policy(ME, expires=NOW + 7 * DAY)
    assert opened(path, weekly, days=6.99).artifact == NEW
    for days in (7, 8, 365):
        assert refusal(path, weekly, days=days) == "trust.policy_expired"
    # A clock that is turned back brings nothing: what was signed today lies ahead of it then.
    assert refusal(path, weekly, days=-1) == "trust.signed_ahead"


@pytest.mark.parametrize(
    ("name", "most"),
    [(MANIFEST, 3 << 20), (TENSORS, 1 << 20), (ENVELOPES, 10 << 20)],
)
def test_endless_data(tmp_path: Path, name: str, most: int) -> None:
    path = delivered(tmp_path / "made", NEW, signed(NEW, ME))
    os.truncate(path / name, 1 << 40)
    tracemalloc.start()
    began = time.process_time()
    assert refusal(path, policy(ME)) == "artifact.trailing"
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most, "no more was read than a good file can have"
    assert seconds < 1


def test_extraneous_dependencies(tmp_path: Path) -> None:
    # The mirror adds something that would be taken along: a file, a tensor, a subject.
    path = delivered(tmp_path / "made", NEW, signed(NEW, ME))
    (path / "modeling.py").write_text("print('run me')")
    assert refusal(path, policy(ME)) == "artifact.extra_file"
    path = delivered(tmp_path / "made", NEW, signed(NEW, ME))
    (path / TENSORS).write_bytes(NEW.tensor_bytes + b"\0" * 8)
    assert refusal(path, policy(ME)) == "artifact.trailing"
    payload = json.loads(Statement.about(NEW, NOW).to_bytes())
    payload["subject"].append({"name": "modeling.py", "digest": {"sha256": "0" * 64}})
    wide = sign(canonical.encode(payload), ME).to_bytes()
    assert refusal(delivered(path, NEW, wide), policy(ME)) == "trust.statement"


def test_mix_and_match(tmp_path: Path) -> None:
    # Each file was rightly signed, but not with the others.
    accepted, refused = [], set()
    for manifest, tensors, vouched in itertools.product((OLD, NEW), repeat=3):
        path = delivered(tmp_path / "made", manifest, signed(vouched, ME))
        (path / TENSORS).write_bytes(tensors.tensor_bytes)
        try:
            accepted.append(opened(path, policy(ME)).artifact)
        except TrustError as e:
            refused.add(e.code)
    assert accepted == [OLD, NEW]
    assert refused == {"trust.subject", "trust.tensors"}


def test_wrong_software_installation(tmp_path: Path) -> None:
    # Another tenant's artifact, rightly signed by that tenant, is no artifact of this one; and what is
    # verified says its name, which whoever asked for a name compares. (The registry resolves a name to
    # a digest and fetches by that.)
    rival = sample(name="rival/support")
    narrow = policy(TrustedKey(MALLORY.public, "mallory", ("rival",)), ME)
    path = delivered(tmp_path / "made", rival, signed(rival, MALLORY))
    assert opened(path, narrow).artifact.manifest.name == "rival/support"
    assert refusal(delivered(path, NEW, signed(NEW, MALLORY)), narrow) == "trust.tenant"
    lied = sign(replace(Statement.about(rival, NOW), name="acme/support").to_bytes(), MALLORY)
    assert refusal(delivered(path, rival, lied.to_bytes()), narrow) == "trust.name"


@pytest.mark.parametrize("name", [MANIFEST, TENSORS, ENVELOPES])
def test_slow_retrieval(tmp_path: Path, name: str) -> None:
    # A source that never ends sending: reading never waits for anybody. (Deadlines of a network belong
    # to the registry's stores; what they give is bytes.)
    path = delivered(tmp_path / "made", NEW, signed(NEW, ME))
    (path / name).unlink()
    os.mkfifo(path / name)
    began = time.monotonic()
    assert refusal(path, policy(ME)) == "artifact.not_a_file"
    assert time.monotonic() - began < 1


def test_key_compromise(tmp_path: Path) -> None:
    # One stolen key is not enough where two are asked for; revoking it takes back all it signed, at any
    # date it may claim, and leaves the other key's word alone.
    path = delivered(tmp_path / "made", EVIL, signed(EVIL, YOU))
    assert refusal(path, policy(ME, YOU, threshold=2)) == "trust.threshold"
    assert opened(path, policy(ME, YOU)).artifact == EVIL
    revoked = policy(ME, YOU).with_status(YOU.id, "revoked")
    for days in (0, -1, -365):
        delivered(path, EVIL, signed(EVIL, YOU, now=NOW + days * DAY))
        assert refusal(path, revoked) == "trust.key_revoked"
    assert opened(delivered(path, NEW, signed(NEW, ME, YOU)), revoked).signers == (ME.id,)
    # What was rightly signed and turned out bad is taken back by its digest.
    taken_back = revoked.with_revoked(NEW.digest, "trained on leaked data")
    assert refusal(path, taken_back) == "trust.digest_revoked"


Tricks = dict[str, Callable[[Path], object]]


def test_malicious_mirror(tmp_path: Path) -> None:
    # A mirror may do to the three files whatever it likes, also two things at once: what comes out is
    # what was signed, or a refusal.
    lines = (signed(NEW, ME), attested(NEW, YOU))
    old_lines = (signed(OLD, ME), attested(OLD, YOU))
    trusting = policy(
        ME, TrustedKey(YOU.public, "you", may=("evaluation",)), require=("evaluation",)
    )
    tricks: Tricks = {
        "nothing": lambda path: None,
        "drops all envelopes": lambda path: (path / ENVELOPES).unlink(),
        "drops the attestation": lambda path: _lines(path, lines[0]),
        "drops the signature": lambda path: _lines(path, lines[1]),
        "turns the lines round": lambda path: _lines(path, *reversed(lines)),
        "repeats a line": lambda path: _lines(path, *lines, lines[0]),
        "adds an old line": lambda path: _lines(path, *lines, old_lines[0]),
        "brings old envelopes": lambda path: _lines(path, *old_lines),
        "signs by itself": lambda path: _lines(path, signed(NEW, MALLORY), lines[1]),
        "signs as well": lambda path: _lines(path, envelope(NEW, MALLORY).to_bytes(), *lines),
        "attests by itself": lambda path: _lines(path, lines[0], attested(NEW, MALLORY)),
        "brings the old manifest": lambda path: _put(path / MANIFEST, OLD.manifest_bytes),
        "brings a manifest of its own": lambda path: _put(path / MANIFEST, EVIL.manifest_bytes),
        "brings old tensors": lambda path: _put(path / TENSORS, OLD.tensor_bytes),
        "cuts the tensors": lambda path: os.truncate(path / TENSORS, 100),
        "cuts the envelopes": lambda path: os.truncate(path / ENVELOPES, 100),
        "links the tensors": lambda path: _link(path / TENSORS),
        "drops the manifest": lambda path: (path / MANIFEST).unlink(missing_ok=True),
        "adds a file": lambda path: _put(path / "adapter.bin", b"\x80\x04."),
    }
    harmless = {
        frozenset(pair)
        for pair in itertools.combinations_with_replacement(
            ("nothing", "turns the lines round", "repeats a line", "signs as well"), 2
        )
    }
    accepted, refused = set(), set()
    for one, two in itertools.product(tricks, repeat=2):
        path = delivered(tmp_path / "made", NEW, *lines)
        try:
            tricks[one](path)
            tricks[two](path)
        except FileNotFoundError:
            continue  # the first trick left nothing for the second one
        try:
            verified = opened(path, trusting)
        except ForewordError as e:
            refused.add(e.code.partition(".")[0])
            continue
        assert verified.artifact == NEW
        assert verified.signers == (ME.id,)
        accepted.add(frozenset((one, two)))
    assert refused == {"trust", "artifact"}
    # Whoever writes the envelopes last decides; the other tricks there undo each other.
    assert harmless <= accepted
    assert all(pair & {"nothing", *_rewrites(tricks)} for pair in accepted)


def _rewrites(tricks: Tricks) -> set[str]:
    return {"turns the lines round", "repeats a line", "signs as well"} & set(tricks)


def _lines(path: Path, *lines: bytes) -> None:
    (path / ENVELOPES).write_bytes(b"".join(line + b"\n" for line in lines))


def _put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _link(path: Path) -> None:
    away = path.parent.parent / "away"
    away.unlink(missing_ok=True)
    path.rename(away)
    path.symlink_to(away)
