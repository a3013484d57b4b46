"""Backup: a registry as a directory that needs no server to be read, and back again.

    journal.jsonl                a header, then one entry a line, oldest first
    blobs/sha256/ab/abcd...      every blob that the state of those entries needs

An export of a live registry is consistent: it holds the journal up to one entry, and the blobs that are
needed right after it. The journal is written last and appears at once, so a directory without it is no
export, and one that is exported to again is the old export until it is the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from foreword.artifact import Digest, canonical
from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, NotFound, RegistryError, StorageError
from foreword.registry.blobs import BlobStore, missing
from foreword.registry.directory import DirectoryBlobs, make
from foreword.registry.entries import GENESIS, Entry, Head
from foreword.registry.gc import needed
from foreword.registry.layout import MAX_APPROVALS
from foreword.registry.registry import Registry
from foreword.registry.state import State, fold
from foreword.signing import files
from foreword.signing.times import moment, stamp

JOURNAL = "journal.jsonl"
BLOBS = "blobs"
SCHEMA = "foreword.export/1"
_MAX_BYTES = 1 << 34
_MAX_ENTRIES = 1 << 53


@dataclass(frozen=True)
class Export:
    """What an export holds; every entry was checked to follow the one before."""

    directory: Path
    head: Head
    approvals: int
    """How many the registry asked for before a release (`registry.toml`)."""
    made: str
    entries: tuple[Entry, ...]
    state: State

    @property
    def blobs(self) -> DirectoryBlobs:
        return DirectoryBlobs(self.directory / BLOBS)

    def to_json(self) -> dict[str, Any]:
        return {
            "directory": str(self.directory),
            "head": {"seq": self.head.seq, "hash": str(self.head.hash)},
            "approvals": self.approvals,
            "made": self.made,
            "entries": len(self.entries),
            "blobs": len(needed(self.state)),
        }


def export(registry: Registry, directory: str | Path, now: datetime) -> Export:
    """Copy a registry into a directory. Others may write to it meanwhile.

    An older export there is brought up to date; blobs it has already are hashed, not copied.

    Raises:
        NotFound, RegistryError: a blob that is needed is missing or damaged; `fsck` says more.
        StorageError: the disk refused, or the registry could not be read. An older export is as it was.
    """
    directory = Path(directory)
    target = DirectoryBlobs(directory / BLOBS)
    _make(directory)
    target.create()
    state = _copy_needed(registry, target)
    entries = tuple(entry for entry in registry.log() if entry.seq <= state.head.seq)
    made = Export(directory, state.head, registry.approvals, stamp(now), entries, state)
    files.replace(directory / JOURNAL, b"".join(_lines(made)), 0o644)
    return made


def open_export(directory: str | Path) -> Export:
    """Read an export's journal and check all of it; its blobs are hashed when they are read.

    Raises:
        NotFound: there is none (`export.missing`).
        RegistryError: it was cut off or changed (`export.damaged`, `registry.chain`,
            `registry.entry`).
        StorageError: the disk refused.
    """
    directory = Path(directory)
    try:
        data = files.read(directory / JOURNAL, _MAX_BYTES)
    except ArtifactError as e:
        raise NotFound(
            f"there is no export at {directory}; expected a directory with {JOURNAL}, which "
            "`foreword registry export` writes last",
            code="export.missing",
        ) from e
    try:
        return _read(directory, data)
    except (ArtifactError, ValueError) as e:
        _damaged(directory, str(e), e)


def restore(directory: str | Path, registry: Registry) -> Export:
    """Fill an empty registry, on whatever database and blob store, from an export.

    Blobs come first and the journal last, in one piece, so whoever looks sees nothing or everything. One
    that was cut short can be run again, and one that is done already does nothing.

    Raises:
        NotFound, RegistryError: the export is not whole; or the registry is not empty
            (`restore.not_empty`), or asks for fewer approvals than the exported one did
            (`restore.approvals`).
        StorageError: the disk or the database refused; run it again.
    """
    source = open_export(directory)
    if registry.approvals < source.approvals:
        raise RegistryError(
            f"the exported registry asks for {source.approvals} approvals before a release, this one for "
            f"{registry.approvals}; make it with at least as many",
            code="restore.approvals",
        )
    there = registry.refresh().head
    if there not in (GENESIS, source.head):
        raise RegistryError(
            f"the registry has {there.seq} entries already; an export is restored into an empty one",
            code="restore.not_empty",
        )
    for digest in needed(source.state):
        if not _copy(digest, source.blobs, registry.blobs):
            raise missing(digest, source.blobs.shown)
    if there == GENESIS:
        registry.journal.take_over(source.entries)
    return source


def _copy_needed(registry: Registry, target: BlobStore) -> State:
    """Copy what is needed; a state that needs just that."""
    while True:
        state = registry.refresh()
        gone = [digest for digest in needed(state) if not _copy(digest, registry.blobs, target)]
        if not gone:
            return state
        still = needed(registry.refresh())
        for digest in gone:  # else it was retired and collected meanwhile: look again
            if digest in still:
                raise missing(digest, registry.blobs.shown)


def _copy(digest: Digest, source: BlobStore, target: BlobStore) -> bool:
    """See that the target has a blob; False if neither has it. Bytes are hashed on either side."""
    there = target.find(digest)
    if there is not None:
        target.get(digest, there.size)
        return True
    found = source.find(digest)
    if found is None:
        return False
    try:
        target.put(source.get(digest, found.size))
    except NotFound:
        return False
    return True


def _lines(export: Export) -> Iterator[bytes]:
    header = {
        "schema": SCHEMA,
        "made": export.made,
        "approvals": export.approvals,
        "head": {"seq": export.head.seq, "hash": str(export.head.hash)},
    }
    for value in (header, *map(_entry_to_json, export.entries)):
        yield canonical.encode(value) + b"\n"


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "time": entry.time,
        "actor": entry.actor,
        "reason": entry.reason,
        "kind": entry.kind,
        "body": entry.body,
        "hash": entry.hash.hex,
    }


def _read(directory: Path, data: bytes) -> Export:
    first, *lines = data.split(b"\n")
    header = Fields(canonical.decode(first), "the header")
    header.choice("schema", (SCHEMA,))
    head = header.object("head")
    seq, hashed = head.integer("seq", 0, _MAX_ENTRIES), Digest.parse(head.text("hash"))
    head.done()
    approvals = header.integer("approvals", 0, MAX_APPROVALS)
    made = stamp(moment(header.text("made")))
    header.done()
    entries = tuple(_entries(lines[:-1]))
    found = entries[-1].head if entries else GENESIS
    if found != Head(seq, hashed) or lines[-1:] != [b""]:
        _damaged(directory, f"it ends at entry {found.seq}, its header says {seq} ({hashed.short})")
    return Export(directory, found, approvals, made, entries, fold(State(), entries))


def _entries(lines: Sequence[bytes]) -> Iterator[Entry]:
    head = GENESIS
    for line in lines:
        fields = Fields(canonical.decode(line), f"entry {head.seq + 1}")
        seq = fields.integer("seq", 1, _MAX_ENTRIES)
        texts = [fields.text(n) for n in ("time", "actor", "reason", "kind", "body", "hash")]
        fields.done()
        entry = Entry.read(head, seq, head.hash.hex, *texts)
        head = entry.head
        yield entry


def _damaged(directory: Path, reason: str, cause: Exception | None = None) -> NoReturn:
    raise RegistryError(
        f"{directory / JOURNAL} was cut off or changed ({reason[:300]}); take another export",
        code="export.damaged",
    ) from cause


def _make(directory: Path) -> None:
    try:
        make(directory)
    except OSError as e:
        raise StorageError(
            f"{directory} could not be made ({e.strerror or e})", code="storage.write"
        ) from e
