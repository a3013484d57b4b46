"""Copies on disk: whole or absent, within their bytes, and never believed without being judged again."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest
from foreword.artifact.package import ENVELOPES, MANIFEST, TENSORS
from foreword.errors import ConfigError, StorageError, TrustError
from foreword.serving.engine.residency import tiers
from foreword.serving.engine.residency.tiers import DiskTier, RecentlyUsed
from foreword.signing.policy import TrustPolicy
from foreword.signing.store import open_verified
from foreword.signing.verify import VerifiedArtifact
from tests.artifact.samples import sample
from tests.serving.prefix_samples import POLICY, SIGNER, verified
from tests.signing.made import NOW

FIRST, SECOND, THIRD = (verified(sample(version=f"{n}.0.0")) for n in (1, 2, 3))
ROOM = 1 << 20


class Judge:
    """Reads a copy by the policy of this moment."""

    def __init__(self, policy: TrustPolicy = POLICY) -> None:
        self.policy = policy

    def __call__(self, directory: Path) -> VerifiedArtifact:
        return open_verified(directory, self.policy, NOW)


def place(directory: Path, digest: Digest) -> Path:
    return directory / digest.hex[:2] / digest.hex


def size(directory: Path, digest: Digest) -> int:
    return sum(file.stat().st_size for file in place(directory, digest).iterdir())


def test_a_copy_comes_back_with_its_bytes_and_its_signer(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, ROOM, Judge())
    assert disk.get(FIRST.digest) is None
    disk.put(FIRST)
    found = disk.get(FIRST.digest)
    assert found is not None
    assert found.artifact == FIRST.artifact
    assert found.signers == (SIGNER.id,)
    assert found.envelopes == FIRST.envelopes
    assert disk.nbytes == size(tmp_path, FIRST.digest)


@pytest.mark.parametrize("name", [MANIFEST, TENSORS, ENVELOPES])
@pytest.mark.parametrize("harm", ["flip", "truncate", "append", "remove", "link", "other"])
def test_a_copy_that_was_changed_is_deleted_and_never_used(
    name: str, harm: str, tmp_path: Path
) -> None:
    disk = DiskTier(tmp_path / "disk", ROOM, Judge())
    disk.put(FIRST)
    disk.put(SECOND)
    file = place(tmp_path / "disk", FIRST.digest) / name
    data = file.read_bytes()
    if harm == "flip":
        file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif harm == "truncate":
        file.write_bytes(data[:-1])
    elif harm == "append":
        file.write_bytes(data + b"{}\n")
    elif harm == "remove":
        file.unlink()
    elif harm == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.write_bytes((place(tmp_path / "disk", SECOND.digest) / name).read_bytes())
    if harm == "other" and name == TENSORS:
        assert FIRST.artifact.tensor_bytes == SECOND.artifact.tensor_bytes
        return  # the very same bytes
    assert disk.get(FIRST.digest) is None
    assert not place(tmp_path / "disk", FIRST.digest).exists()
    assert disk.nbytes == size(tmp_path / "disk", SECOND.digest)


def test_a_whole_and_signed_copy_of_something_else_is_not_taken_for_it(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, ROOM, Judge())
    disk.put(FIRST)
    disk.put(SECOND)
    there, here = place(tmp_path, FIRST.digest), place(tmp_path, SECOND.digest)
    here.rename(tmp_path / "aside")
    there.rename(here)
    assert disk.get(SECOND.digest) is None


def test_a_revoked_key_and_a_revoked_digest_count_for_copies_on_disk(tmp_path: Path) -> None:
    judge = Judge()
    disk = DiskTier(tmp_path, ROOM, judge)
    for harm in (
        POLICY.with_status(SIGNER.id, "revoked"),
        POLICY.with_revoked(FIRST.digest, "it swears"),
    ):
        judge.policy = POLICY
        disk.put(FIRST)
        assert disk.get(FIRST.digest) is not None
        judge.policy = harm
        assert disk.get(FIRST.digest) is None
        assert FIRST.digest not in disk


def test_a_policy_that_is_no_good_costs_no_copy(tmp_path: Path) -> None:
    judge = Judge()
    disk = DiskTier(tmp_path, ROOM, judge)
    disk.put(FIRST)
    judge.policy = dataclasses.replace(POLICY, expires=NOW)
    with pytest.raises(TrustError) as caught:
        disk.get(FIRST.digest)
    assert caught.value.code == "trust.policy_expired"
    judge.policy = POLICY
    assert disk.get(FIRST.digest) is not None


def test_the_least_recently_read_goes_when_the_bytes_are_used_up(tmp_path: Path) -> None:
    DiskTier(tmp_path, ROOM, Judge()).put(FIRST)
    one = size(tmp_path, FIRST.digest)
    disk = DiskTier(tmp_path, 2 * one, Judge())
    disk.put(SECOND)
    assert disk.get(FIRST.digest) is not None
    disk.put(THIRD)
    assert SECOND.digest not in disk
    assert not place(tmp_path, SECOND.digest).exists()
    assert disk.nbytes == 2 * one


def test_a_copy_larger_than_the_whole_tier_is_not_written(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, 100, Judge())
    disk.put(FIRST)
    assert FIRST.digest not in disk
    assert list(tmp_path.iterdir()) == []


def test_a_restart_finds_its_copies_in_their_order_and_sweeps_drafts(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, ROOM, Judge())
    for moment, each in enumerate((FIRST, SECOND, THIRD)):
        disk.put(each)
        os.utime(place(tmp_path, each.digest), (moment, moment))
    assert disk.get(FIRST.digest) is not None
    draft = tmp_path / FIRST.digest.hex[:2] / f".{FIRST.digest.hex}.cut_short"
    draft.mkdir()
    (draft / MANIFEST).write_bytes(b"{")
    one = size(tmp_path, FIRST.digest)
    again = DiskTier(tmp_path, 2 * one, Judge())
    assert not draft.exists()
    assert SECOND.digest not in again, "it was read longest ago"
    assert again.get(FIRST.digest) is not None
    assert again.get(THIRD.digest) is not None


@pytest.mark.parametrize("failing", ["write_synced", "sync_directory"])
def test_a_full_disk_leaves_nothing_behind(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    disk = DiskTier(tmp_path, ROOM, Judge())
    monkeypatch.setattr(tiers, failing, full)
    with pytest.raises(StorageError) as caught:
        disk.put(FIRST)
    assert caught.value.code == "storage.full"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert FIRST.digest not in disk
    assert disk.nbytes == 0


def test_readers_and_writers_at_once_see_whole_copies_or_none(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, ROOM, Judge())
    wrong: list[object] = []

    def churn(number: int) -> None:
        for round_ in range(30):
            try:
                if (round_ + number) % 3 == 0:
                    disk.drop(FIRST.digest)
                disk.put(FIRST)
                found = disk.get(FIRST.digest)
                if found is not None and found.digest != FIRST.digest:
                    wrong.append(found)
            except StorageError:
                pass  # somebody else's copy stood in the way of the rename
            except BaseException as e:
                wrong.append(e)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_directory_that_is_a_file_and_a_budget_below_zero_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        DiskTier(tmp_path / "file", ROOM, Judge())
    with pytest.raises(ConfigError):
        DiskTier(tmp_path / "fine", -1, Judge())


NAMES = [Digest(f"{number:064x}") for number in range(8)]


@given(st.lists(st.tuples(st.sampled_from("pgr"), st.integers(0, 7), st.integers(0, 60))))
def test_what_is_kept_is_what_was_used_last_within_the_budget(
    steps: list[tuple[str, int, int]],
) -> None:
    kept = RecentlyUsed[int](100)
    model: dict[Digest, int] = {}
    for what, number, nbytes in steps:
        digest = NAMES[number]
        if what == "g":
            assert kept.get(digest) == model.get(digest)
            if digest in model:
                model[digest] = model.pop(digest)
        elif what == "r":
            assert kept.remove(digest) == (model.pop(digest, None) is not None)
        else:
            model.pop(digest, None)
            model[digest] = nbytes
            gone = []
            while sum(model.values()) > 100:
                gone.append(next(iter(model)))
                del model[gone[-1]]
            assert kept.put(digest, nbytes, nbytes) == gone
        assert kept.nbytes == sum(model.values()) <= 100
        assert len(kept) == len(model)
