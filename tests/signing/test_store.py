"""Trust on disk: files appear whole, nobody's envelope is lost, and strange files are refused."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from foreword.artifact import open_artifact, write_artifact
from foreword.artifact.package import ENVELOPES
from foreword.errors import ArtifactError, ForewordError, StorageError, TrustError
from foreword.signing import files, store
from foreword.signing.policy import TrustedKey, TrustPolicy
from foreword.signing.verify import MAX_ENVELOPES
from tests.artifact.samples import sample
from tests.signing.made import NOW, attested, envelope, key, policy, signed

ARTIFACT = sample()
ME = key("me")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return write_artifact(ARTIFACT, tmp_path / "made")


def refusal(kind: type[ForewordError], action: object, *given: object) -> str:
    with pytest.raises(kind) as caught:
        action(*given)  # type: ignore[operator]
    return caught.value.code


def test_a_signed_artifact_is_opened_from_its_directory(made: Path) -> None:
    assert store.read_envelopes(made) == ()
    with pytest.raises(TrustError) as caught:
        store.open_verified(made, policy(ME), NOW)
    assert caught.value.code == "trust.unsigned"
    store.add_envelope(made, envelope(ARTIFACT, ME))
    assert store.open_verified(made, policy(ME), NOW).digest == ARTIFACT.digest
    assert open_artifact(made) == ARTIFACT, "who does not ask for trust reads it as before"


def test_envelopes_are_lines_and_none_is_added_twice(made: Path) -> None:
    one, two = envelope(ARTIFACT, ME), envelope(ARTIFACT, key("you"))
    for each in (one, two, one):
        store.add_envelope(made, each)
    assert (made / ENVELOPES).read_bytes() == one.to_bytes() + b"\n" + two.to_bytes() + b"\n"
    assert store.read_envelopes(made) == (one.to_bytes(), two.to_bytes())
    assert sorted(p.name for p in made.parent.iterdir()) == ["made"], "no draft is left behind"
    assert stat.S_IMODE((made / ENVELOPES).stat().st_mode) == 0o644


def test_signing_at_the_same_time_loses_nothing_and_never_shows_a_draft(made: Path) -> None:
    each = [envelope(ARTIFACT, ME, now=NOW - timedelta(seconds=i)) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        adding = [pool.submit(store.add_envelope, made, one) for one in each]
        while not all(one.done() for one in adding):
            open_artifact(made)  # refuses any name it does not know
    for one in adding:
        one.result()
    assert set(store.read_envelopes(made)) == {one.to_bytes() for one in each}


def test_there_is_an_end_to_envelopes(made: Path) -> None:
    lines = [attested(ARTIFACT, ME, now=NOW - timedelta(seconds=i)) for i in range(MAX_ENVELOPES)]
    (made / ENVELOPES).write_bytes(b"".join(line + b"\n" for line in lines))
    assert (
        refusal(TrustError, store.add_envelope, made, envelope(ARTIFACT, ME)) == "trust.too_large"
    )


def test_a_file_that_is_no_list_of_envelopes_is_refused(made: Path) -> None:
    path, good = made / ENVELOPES, signed(ARTIFACT, ME)
    for data, code in (
        (good, "trust.envelope"),  # its last line is cut off
        (good + b"\n" + good[:-5], "trust.envelope"),
        (good + b"\n\n", "trust.envelope"),
        (good + b"\r\n", "trust.envelope_form"),
        (b"\n", "trust.envelope"),
    ):
        path.write_bytes(data)
        assert refusal(TrustError, store.open_verified, made, policy(ME), NOW) == code, data[-10:]
    path.write_bytes(b"")
    assert refusal(TrustError, store.open_verified, made, policy(ME), NOW) == "trust.unsigned"


def test_links_pipes_and_devices_are_no_envelopes(made: Path, tmp_path: Path) -> None:
    path = made / ENVELOPES
    (tmp_path / "elsewhere").write_bytes(signed(ARTIFACT, ME) + b"\n")
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(ArtifactError, store.read_envelopes, made) == "artifact.link"
    path.unlink()
    os.mkfifo(path)
    assert refusal(ArtifactError, store.read_envelopes, made) == "artifact.not_a_file"
    assert refusal(ArtifactError, store.add_envelope, made, envelope(ARTIFACT, ME))


def test_a_place_that_cannot_be_written_stays_as_it_was(made: Path) -> None:
    store.add_envelope(made, envelope(ARTIFACT, ME))
    before = (made / ENVELOPES).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _full_disk)
        code = refusal(StorageError, store.add_envelope, made, envelope(ARTIFACT, key("you")))
    assert code == "storage.full"
    assert (made / ENVELOPES).read_bytes() == before
    assert sorted(p.name for p in made.parent.iterdir()) == ["made"]
    nowhere = made.parent / "nowhere"
    assert refusal(StorageError, store.add_envelope, nowhere, envelope(ARTIFACT, ME))


def _full_disk(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_the_policy_lies_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    with pytest.raises(TrustError, match="foreword keys new") as caught:
        store.load_policy()
    assert caught.value.code == "trust.policy_missing"
    assert store.create_policy(policy(ME))
    assert not store.create_policy(TrustPolicy()), "the first one stays"
    assert store.load_policy() == policy(ME)
    store.save_policy(policy(key("you")))
    assert store.load_policy() == policy(key("you"))
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["trust.toml"]


def test_a_policy_behind_a_link_is_read_and_written_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    store.save_policy(policy(ME), tmp_path / "mounted" / "trust.toml")
    link = tmp_path / "trust.toml"
    link.symlink_to(tmp_path / "mounted" / "trust.toml")
    store.save_policy(policy(key("you")), link)
    assert link.is_symlink()
    assert store.load_policy(link) == policy(key("you"))


def test_a_policy_that_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refusal(TrustError, store.load_policy, tmp_path) == "trust.policy"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(TrustError, store.load_policy, tmp_path / "pipe") == "trust.policy"
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 1 << 40)
    assert refusal(TrustError, store.load_policy, tmp_path / "big") == "trust.policy"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refusal(ForewordError, store.load_policy, tmp_path / "loop")


def test_a_revocation_is_not_lost_to_somebody_elses_change(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    store.save_policy(policy(ME), path)
    others = [key(f"k{i}") for i in range(8)]

    def trust(number: int) -> None:
        added = TrustedKey(others[number].public, others[number].name)
        store.change_policy(lambda old: old.with_key(added), path)

    with ThreadPoolExecutor(4) as pool:
        changes = [pool.submit(trust, number) for number in range(4)]
        revoked = pool.submit(
            store.change_policy, lambda old: old.with_status(ME.id, "revoked"), path
        )
        changes += [pool.submit(trust, number) for number in range(4, 8)]
    for change in (*changes, revoked):
        change.result()
    found = store.load_policy(path)
    assert found.keys[ME.id].status == "revoked"
    assert set(found.keys) == {ME.id, *(other.id for other in others)}


def test_create_never_replaces(tmp_path: Path) -> None:
    assert files.create(tmp_path / "new", b"one", 0o600)
    assert not files.create(tmp_path / "new", b"two", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not files.create(tmp_path / "link", b"two", 0o600)
    assert (tmp_path / "new").read_bytes() == b"one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "new"]
