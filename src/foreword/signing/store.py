"""Where trust lies on disk: `envelopes.jsonl` beside an artifact, `trust.toml` in `FOREWORD_HOME`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from foreword.artifact.disk import read_bounded
from foreword.artifact.package import ENVELOPES, read_files
from foreword.config import foreword_home
from foreword.errors import ArtifactError, StorageError, TrustError
from foreword.signing import files
from foreword.signing.envelope import MAX_BYTES, Envelope
from foreword.signing.policy import MAX_BYTES as MAX_POLICY
from foreword.signing.policy import Purpose, TrustPolicy
from foreword.signing.verify import MAX_ENVELOPES, VerifiedArtifact, verify


def open_verified(
    directory: str | Path, policy: TrustPolicy, now: datetime, *, purpose: Purpose = "use"
) -> VerifiedArtifact:
    """Read an artifact and its envelopes, each file once, and judge those bytes.

    Raises:
        ArtifactError, TrustError, StorageError: as `open_artifact`, `read_envelopes` and `verify`.
    """
    manifest, tensors = read_files(directory)
    return verify(manifest, tensors, read_envelopes(directory), policy, now, purpose=purpose)


def read_envelopes(directory: str | Path) -> tuple[bytes, ...]:
    """The lines of `envelopes.jsonl`, () if there is no such file; not yet looked into.

    Raises:
        ArtifactError: a link, not a regular file, or larger than it can be.
        TrustError: the last line was cut off (`trust.envelope`).
        StorageError: the disk refused.
    """
    path = Path(directory) / ENVELOPES
    try:
        data = read_bounded(path, MAX_ENVELOPES * (MAX_BYTES + 1))
    except ArtifactError as e:
        if e.code == "artifact.missing":
            return ()
        raise
    if data and not data.endswith(b"\n"):
        raise TrustError(
            f"{path} does not end with a line break; it was cut off, get another copy",
            code="trust.envelope",
        )
    return tuple(data.split(b"\n")[:-1])


def add_envelope(directory: str | Path, envelope: Envelope) -> None:
    """Put one more envelope beside an artifact; one that is there already is not added again.

    Readers see the file with it or without it, and nobody else's envelope is lost.

    Raises:
        ArtifactError, TrustError: what is there cannot be added to.
        StorageError: the disk refused; a reader still sees the file with it or without it.
    """
    directory, line = Path(directory), envelope.to_bytes()
    with files.locked(directory):
        there = read_envelopes(directory)
        if line in there:
            return
        if len(there) >= MAX_ENVELOPES:
            raise TrustError(
                f"{directory} has {MAX_ENVELOPES} envelopes already, which is the most there may be",
                code="trust.too_large",
            )
        data = b"".join(each + b"\n" for each in (*there, line))
        # Beside the directory, because a reader refuses names it does not know inside it.
        files.replace(directory / ENVELOPES, data, 0o644, scratch=files.real(directory).parent)


def policy_path() -> Path:
    return foreword_home() / "trust.toml"


def load_policy(path: str | Path | None = None) -> TrustPolicy:
    """The trust policy in a file, by default `FOREWORD_HOME/trust.toml`.

    Raises:
        TrustError: there is none (`trust.policy_missing`), or it is malformed (`trust.policy*`).
        StorageError: the disk refused.
    """
    path = Path(path) if path else policy_path()
    try:
        data = files.read(path, MAX_POLICY)
    except ArtifactError as e:
        if e.code != "artifact.missing":
            raise TrustError(f"{e}; expected a trust policy", code="trust.policy") from e
        raise TrustError(
            f"there is no trust policy at {path}; `foreword keys new NAME` makes a key and a first "
            "policy that trusts it, or name a file with --trust",
            code="trust.policy_missing",
        ) from e
    return TrustPolicy.from_toml(data)


def create_policy(policy: TrustPolicy) -> bool:
    """Write the first policy of `FOREWORD_HOME`; False, and nothing is written, if there is one.

    Raises:
        StorageError: the disk refused.
    """
    path = policy_path()
    _make_room(path.parent)
    return files.create(path, policy.to_toml(), 0o644)


def save_policy(policy: TrustPolicy, path: str | Path | None = None) -> None:
    """Write a trust policy; readers see the old one or the new one.

    Raises:
        StorageError: the disk refused; a reader still sees one of the two.
    """
    path = Path(path) if path else policy_path()
    _make_room(path.parent)
    files.replace(files.real(path), policy.to_toml(), 0o644)


def change_policy(
    change: Callable[[TrustPolicy], TrustPolicy], path: str | Path | None = None
) -> TrustPolicy:
    """Apply a change to the policy on disk; two changes at once both happen.

    Raises:
        TrustError, StorageError: as `load_policy` and `save_policy`, and what `change` raises.
    """
    path = Path(path) if path else policy_path()
    with files.locked(_make_room(path.parent)):
        changed = change(load_policy(path))
        save_policy(changed, path)
    return changed


def _make_room(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(
            f"{directory} could not be made ({e.strerror})", code="storage.write"
        ) from e
    return directory
