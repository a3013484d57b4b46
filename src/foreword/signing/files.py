"""Small files that appear whole or not at all, and stay after a power cut."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from foreword.artifact.disk import not_written, read_bounded, sync_directory
from foreword.errors import StorageError


def read(path: Path, most: int) -> bytes:
    """At most `most` bytes of a file that a user named; a link is followed, once.

    Policies and keys are often mounted behind links, which change when the file does.

    Raises:
        ArtifactError, StorageError: as `read_bounded`.
    """
    return read_bounded(real(path), most)


def real(path: Path) -> Path:
    """Where a path leads; links that run in a circle lead to themselves."""
    return Path(os.path.realpath(path))


def create(path: Path, data: bytes, mode: int) -> bool:
    """Write a new file; False, and nothing is written, if there is one already.

    Raises:
        StorageError: the disk refused.
    """
    with _draft(path, path.parent, data, mode) as draft:
        try:
            os.link(draft, path, follow_symlinks=False)  # unlike a rename, it never replaces
        except FileExistsError:
            return False
        sync_directory(path.parent)
        return True


def replace(path: Path, data: bytes, mode: int, *, scratch: Path | None = None) -> None:
    """Write a file or replace it; readers see the old one or the new one.

    The draft lies beside the file, or in `scratch` on the same file system.

    Raises:
        StorageError: the disk refused; a reader still sees one of the two.
    """
    with _draft(path, scratch or path.parent, data, mode) as draft:
        os.replace(draft, path)
        sync_directory(path.parent)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock, so that reading, changing and replacing a file loses no change.

    Raises:
        StorageError: the directory cannot be opened or locked.
    """
    with contextlib.ExitStack() as cleanup:
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            cleanup.callback(os.close, descriptor)  # gives the lock back, as a crash does
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as e:
            raise StorageError(
                f"{directory} cannot be locked ({e.strerror})", code="storage.read"
            ) from e
        yield


@contextlib.contextmanager
def _draft(path: Path, scratch: Path, data: bytes, mode: int) -> Iterator[Path]:
    """The data in a file of another name, on disk; gone afterwards if it was not renamed."""
    draft: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=scratch, prefix=f".{path.name}.")
        draft = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    except OSError as e:
        raise not_written(path, e) from e
    finally:
        if draft is not None:
            with contextlib.suppress(OSError):
                draft.unlink()
