"""One run of fsck, from the ground up: what a later look relies on is looked at first."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from foreword.artifact import Digest
from foreword.errors import StorageError
from foreword.registry.blobs import BlobStore, StoredBlob
from foreword.registry.database import Database
from foreword.registry.entries import Head
from foreword.registry.fsck import blobs, database, journal, places, state, words
from foreword.registry.fsck.finding import Finding, broken
from foreword.registry.gc import needed
from foreword.registry.layout import Layout
from foreword.signing.policy import TrustPolicy


@dataclass(frozen=True)
class Report:
    """What was found, and how much was looked at."""

    findings: tuple[Finding, ...]
    entries: int
    versions: int
    blobs: int
    size: int
    """Bytes of blobs that were read and hashed."""

    @property
    def is_sound(self) -> bool:
        """Nothing is broken."""
        return all(finding.severity != "broken" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "sound": self.is_sound,
            "findings": [finding.to_json() for finding in self.findings],
            "entries": self.entries,
            "versions": self.versions,
            "blobs": self.blobs,
            "size": self.size,
        }


def fsck(
    layout: Layout,
    now: datetime,
    *,
    policy: TrustPolicy | None = None,
    known: Head | None = None,
    deep: bool = True,
) -> Report:
    """Look for everything that contradicts itself. Writers may go on meanwhile.

    With `policy`, every live version is verified by it. `known` is an entry that was written down
    elsewhere, such as the head of an export: only by that can a journal be caught whose end was cut off.
    Without `deep`, blobs are not read.

    Raises:
        ConfigError: the registry's settings cannot be used.
    """
    with contextlib.closing(layout.open_database()) as opened:
        return _Run(layout, opened, layout.open_blobs(), now).report(policy, known, deep)


class _Run:
    def __init__(self, layout: Layout, database: Database, store: BlobStore, now: datetime) -> None:
        self._layout = layout
        self._database = database
        self._store = store
        self._now = now
        self._found: list[Finding] = []

    def report(self, policy: TrustPolicy | None, known: Head | None, deep: bool) -> Report:
        self._found += places.modes(self._layout, self._database)
        # Blobs are listed before the journal is read, so that what is published meanwhile is no orphan.
        listed = self._listed()
        unreadable = database.unreadable(self._database)
        if unreadable:
            self._found.append(unreadable)
            return Report(tuple(self._found), 0, 0, 0, 0)
        reading = self._journal(known)
        look = blobs.Look(self._store, deep)
        if listed is not None:
            self._blobs(reading, listed, look, policy)
        return Report(
            tuple(self._found),
            len(reading.entries),
            len(reading.state.versions),
            look.read,
            look.size,
        )

    def _journal(self, known: Head | None) -> journal.Reading:
        reading = journal.read(self._database)
        try:
            self._found += database.damage(self._database)
            self._found += database.guards(self._database)
            self._found += journal.names(self._database, reading.entries)
        except StorageError as e:
            self._found.append(broken("database", self._database.shown, str(e), database.RESTORE))
        self._found += journal.missing(reading, known) if known else ()
        self._found += [reading.stop] if reading.stop else ()
        self._found += state.contradictions(reading.state)
        return reading

    def _blobs(
        self,
        reading: journal.Reading,
        listed: list[StoredBlob],
        look: blobs.Look,
        policy: TrustPolicy | None,
    ) -> None:
        if not listed and needed(reading.state):
            self._found.append(
                broken("store", self._store.shown, "it holds no blob at all",
                       "see that it is mounted and named right in registry.toml; else restore a backup")
            )  # fmt: skip
            return
        for version in reading.state.versions.values():
            read = look.at(version)
            if read is None or version.status == "retired":
                continue
            self._found += words.agreement(version, read)
            if policy and version.status == "live":
                self._found += words.trust(reading.state, version, read, policy, self._now)
        self._found += self._still(look.lacking, reading)
        self._found += blobs.strays(self._store, self._now)
        if not reading.stop:
            self._found += blobs.orphans(reading.state, listed, self._now)

    def _still(
        self, lacking: list[tuple[Digest, Finding]], reading: journal.Reading
    ) -> list[Finding]:
        """Without what was retired and collected while we looked."""
        if not lacking or reading.stop:
            return [finding for _, finding in lacking]
        wanted = needed(journal.read(self._database).state)
        return [finding for digest, finding in lacking if digest in wanted]

    def _listed(self) -> list[StoredBlob] | None:
        try:
            return list(self._store.stored())
        except StorageError as e:
            self._found.append(
                broken("store", self._store.shown, str(e), "see that it is there and may be read")
            )
            return None
