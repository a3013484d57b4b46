"""Files as everything at rest is read and written: bounded, never through a link, synced."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from foreword.errors import ArtifactError, StorageError


def read_bounded(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a regular file; links, pipes and devices are refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as e:
        raise ArtifactError(f"{path} is missing", code="artifact.missing") from e
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise ArtifactError(f"{path} is a link; expected a file", code="artifact.link") from e
        if e.errno == errno.ENXIO:  # a socket
            raise _not_a_file(path) from e
        raise StorageError(f"{path} cannot be read ({e.strerror})", code="storage.read") from e
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):  # before fdopen, which refuses directories
        os.close(descriptor)
        raise _not_a_file(path)
    with os.fdopen(descriptor, "rb") as file:
        try:
            # Room for what is there, not for what a manifest claims.
            data = file.read(min(limit, found.st_size) + 1)
        except OSError as e:
            raise StorageError(f"{path} cannot be read ({e.strerror})", code="storage.read") from e
    if len(data) > limit:
        raise ArtifactError(
            f"{path} has more than the {limit} bytes it should have", code="artifact.trailing"
        )
    return data


def write_synced(path: Path, data: bytes) -> None:
    """Write a file that survives a power cut; so that its name does too, sync its directory."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_written(target: Path, error: OSError) -> StorageError:
    """What to raise when the system refused to write something that is now wholly absent."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return StorageError(
        f"{target} could not be written ({error.strerror or error}); nothing was left behind"
        + ("; free some space and try again" if full else ""),
        code="storage.full" if full else "storage.write",
    )


def _not_a_file(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is not a regular file", code="artifact.not_a_file")
