"""The journal's vocabulary: everything that can happen in a registry, and the entry that tells it.

An event says what changed. An entry adds who, why and when, and chains it to the entry before: its hash
covers its own fields and the hash of that entry, so nothing can be changed, left out or put in between
without every later hash changing too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar

from foreword.artifact import Digest, canonical
from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, RegistryError, UsageError
from foreword.registry.facts import (
    Base,
    Claim,
    VersionFacts,
    base_from_json,
    base_to_json,
    claim_from_json,
    claim_to_json,
    digest_or_none,
    facts_from_json,
    facts_to_json,
    text_or_null,
)
from foreword.registry.tagged import tagged
from foreword.signing.times import moment, stamp
from foreword.signing.verify import MAX_ENVELOPES

MAX_ACTOR = 200
MAX_REASON = 2_000
MAX_MEASURE = 80
MAX_STATISTIC = 1e300

_E = TypeVar("_E")


@dataclass(frozen=True)
class By:
    """Who changes something, why and when."""

    actor: str
    """A person or a program; the registry takes its word for it. Proof is in the envelopes."""
    now: datetime
    reason: str = ""

    def __post_init__(self) -> None:
        _check_line("actor", self.actor, 1, MAX_ACTOR)
        _check_line("reason", self.reason, 0, MAX_REASON)
        stamp(self.now)  # refuses a time without a zone, which names no moment


@dataclass(frozen=True)
class BaseDeclared:
    """A base model is run here; prefixes made for it may be published."""

    kind: ClassVar[str] = "base_declared"
    base: Base

    @property
    def name(self) -> None:
        """It is about no prefix."""
        return None

    def to_json(self) -> dict[str, Any]:
        return base_to_json(self.base)

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        return cls(base_from_json(fields))


@dataclass(frozen=True)
class BaseWithdrawn:
    """A base model is no longer run here."""

    kind: ClassVar[str] = "base_withdrawn"
    id: str

    @property
    def name(self) -> None:
        """It is about no prefix."""
        return None

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        return _read(fields, cls(fields.text("id")))


@dataclass(frozen=True)
class Published:
    """A new version is here: its bytes, and the envelopes that vouch for it."""

    kind: ClassVar[str] = "published"
    facts: VersionFacts
    claims: tuple[Claim, ...]

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def digest(self) -> Digest:
        return self.facts.digest

    def to_json(self) -> dict[str, Any]:
        return {
            "facts": facts_to_json(self.facts),
            "claims": [claim_to_json(claim) for claim in self.claims],
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        facts = facts_from_json(fields.object("facts"))
        claims = tuple(claim_from_json(c) for c in fields.objects("claims", MAX_ENVELOPES))
        return _read(fields, cls(facts, claims))


@dataclass(frozen=True)
class Attested:
    """One more envelope about a version that was published before."""

    kind: ClassVar[str] = "attested"
    name: str
    digest: Digest
    claim: Claim

    def to_json(self) -> dict[str, Any]:
        return {**_version(self.name, self.digest), "claim": claim_to_json(self.claim)}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        name, digest = _read_version(fields)
        return _read(fields, cls(name, digest, claim_from_json(fields.object("claim"))))


@dataclass(frozen=True)
class _OfVersion:
    """An event that says no more than which version it is about."""

    name: str
    digest: Digest

    def to_json(self) -> dict[str, Any]:
        return _version(self.name, self.digest)

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        return _read(fields, cls(*_read_version(fields)))


@dataclass(frozen=True)
class Approved(_OfVersion):
    """The actor agrees that this version is released."""

    kind: ClassVar[str] = "approved"


@dataclass(frozen=True)
class Retired(_OfVersion):
    """A version is no longer needed; its blobs may be reclaimed."""

    kind: ClassVar[str] = "retired"


@dataclass(frozen=True)
class _OfShare(_OfVersion):
    """An event that gives a version a share of the keys."""

    share: float

    def to_json(self) -> dict[str, Any]:
        return {**_version(self.name, self.digest), "share": self.share}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        return _read(fields, cls(*_read_version(fields), fields.number("share", 0, 1)))


@dataclass(frozen=True)
class Released(_OfShare):
    """With share 1 the version becomes stable; with less it becomes the canary."""

    kind: ClassVar[str] = "released"


@dataclass(frozen=True)
class Shifted(_OfShare):
    """The running canary gets another share; with 1 it becomes stable."""

    kind: ClassVar[str] = "shifted"


@dataclass(frozen=True)
class RolledBack:
    """A version is taken back out of the release."""

    kind: ClassVar[str] = "rolled_back"
    name: str
    left: Digest
    """Gets no keys any more: the canary if there was one, else what was stable."""
    stable: Digest
    """Stable from now on."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "left": str(self.left), "stable": str(self.stable)}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        event = cls(
            name=fields.text("name"),
            left=Digest.parse(fields.text("left")),
            stable=Digest.parse(fields.text("stable")),
        )
        return _read(fields, event)


@dataclass(frozen=True)
class Revoked:
    """A version must not be used any more, wherever it is."""

    kind: ClassVar[str] = "revoked"
    name: str
    digest: Digest
    fallback: Digest | None
    """If it was stable, what is stable from now on; None if there is nothing to fall back to."""

    def to_json(self) -> dict[str, Any]:
        return {
            **_version(self.name, self.digest),
            "fallback": text_or_null(self.fallback),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        name, digest = _read_version(fields)
        return _read(fields, cls(name, digest, digest_or_none(fields, "fallback")))


@dataclass(frozen=True)
class Aliased:
    """An own alias stands for a version, or (None) for nothing any more."""

    kind: ClassVar[str] = "aliased"
    name: str
    alias: str
    digest: Digest | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "alias": self.alias, "digest": text_or_null(self.digest)}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        event = cls(
            name=fields.text("name"),
            alias=fields.text("alias"),
            digest=digest_or_none(fields, "digest"),
        )
        return _read(fields, event)


@dataclass(frozen=True)
class Drifted:
    """What a version is asked, or how it answers, is not any more what it was at its release."""

    kind: ClassVar[str] = "drifted"
    name: str
    digest: Digest
    measure: str
    """What was looked at and how, such as `inputs.mmd`."""
    statistic: float
    p: float
    """Of no change."""
    window: Digest
    """Of the reference window, kept as a blob."""
    snapshot: Digest
    """Of the rows that were looked at, kept as a blob: data to train the next version from."""

    def __post_init__(self) -> None:
        _check_line("measure", self.measure, 1, MAX_MEASURE)

    def to_json(self) -> dict[str, Any]:
        return {
            **_version(self.name, self.digest),
            "measure": self.measure,
            "statistic": self.statistic,
            "p": self.p,
            "window": str(self.window),
            "snapshot": str(self.snapshot),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        name, digest = _read_version(fields)
        event = cls(
            name=name,
            digest=digest,
            measure=fields.text("measure"),
            statistic=fields.number("statistic", -MAX_STATISTIC, MAX_STATISTIC),
            p=fields.number("p", 0, 1),
            window=Digest.parse(fields.text("window")),
            snapshot=Digest.parse(fields.text("snapshot")),
        )
        return _read(fields, event)


Event = (
    BaseDeclared
    | BaseWithdrawn
    | Published
    | Attested
    | Approved
    | Released
    | Shifted
    | RolledBack
    | Revoked
    | Retired
    | Aliased
    | Drifted
)
EVENTS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (
        BaseDeclared, BaseWithdrawn, Published, Attested, Approved, Released, Shifted, RolledBack,
        Revoked, Retired, Aliased, Drifted,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """The last entry somebody knows of."""

    seq: int
    hash: Digest


GENESIS = Head(0, Digest("0" * 64))
"""Before the first entry."""


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    seq: int
    """From 1, without gaps."""
    previous: Digest
    """Hash of the entry before; `GENESIS.hash` for the first."""
    time: str
    """UTC, as 2026-01-31T12:00:00Z: the actor's clock. Order comes from `seq`, never from time."""
    actor: str
    reason: str
    kind: str
    body: str
    """The event as canonical JSON, exactly as it was hashed."""
    hash: Digest
    event: Event

    @classmethod
    def after(cls, head: Head, event: Event, by: By) -> Entry:
        """The entry that tells `event` next after `head`."""
        seq, time, body = head.seq + 1, stamp(by.now), canonical.encode(event.to_json()).decode()
        hashed = _hash(seq, head.hash, time, by.actor, by.reason, event.kind, body)
        return cls(seq, head.hash, time, by.actor, by.reason, event.kind, body, hashed, event)

    @classmethod
    def read(
        cls,
        head: Head,
        seq: int,
        previous: str,
        time: str,
        actor: str,
        reason: str,
        kind: str,
        body: str,
        hash: str,
    ) -> Entry:
        """The entry that was kept, if it is the next one after `head`.

        Raises:
            RegistryError: it is not (`registry.chain`), or it tells something this Foreword does not
                know (`registry.entry`).
        """
        # A database that somebody wrote to by hand can give anything, SQLite also other types.
        if not all(isinstance(each, str) for each in (time, actor, reason, kind, body)):
            raise _broken(seq, head)
        found = _hash(head.seq + 1, head.hash, time, actor, reason, kind, body)
        if (seq, previous, hash) != (head.seq + 1, head.hash.hex, found.hex):
            raise _broken(seq, head)
        return cls(seq, head.hash, time, actor, reason, kind, body, found, _event(seq, kind, body))

    @property
    def head(self) -> Head:
        return Head(self.seq, self.hash)

    @property
    def at(self) -> datetime:
        """`time` as a moment."""
        return moment(self.time)


def _hash(
    seq: int, previous: Digest, time: str, actor: str, reason: str, kind: str, body: str
) -> Digest:
    texts = (time, actor, reason, kind, body)
    fields = (seq.to_bytes(8, "big"), bytes.fromhex(previous.hex), *(t.encode() for t in texts))
    return Digest(tagged("foreword.journal/1", *fields).hex())


def _broken(seq: object, head: Head) -> RegistryError:
    return RegistryError(
        f"entry {seq!r} does not follow entry {head.seq}: the journal was changed after it was written; "
        "stop writing to it and restore it from a backup",
        code="registry.chain",
    )


def _event(seq: int, kind: str, body: str) -> Event:
    event = EVENTS.get(kind)
    if event is None:
        raise RegistryError(
            f"entry {seq} is a {kind[:40]!r}, which this Foreword does not know; a newer one wrote "
            "it, install that",
            code="registry.entry",
        )
    try:
        # Not canonical.decode: the hash has shown already that these are the bytes we wrote.
        return event.from_json(Fields(json.loads(body), kind))
    except (ArtifactError, ValueError) as e:
        raise RegistryError(
            f"entry {seq} ({kind}) cannot be read: {e}", code="registry.entry"
        ) from e


def _version(name: str, digest: Digest) -> dict[str, Any]:
    return {"name": name, "digest": str(digest)}


def _read_version(fields: Fields) -> tuple[str, Digest]:
    return fields.text("name"), Digest.parse(fields.text("digest"))


def _read(fields: Fields, event: _E) -> _E:
    fields.done()
    return event


def _check_line(what: str, text: str, least: int, most: int) -> None:
    """Text that is shown in logs and terminals, and that every database can hold."""
    if not least <= len(text) <= most or not text.isprintable():
        raise UsageError(
            f"expected the {what} as one line of {least} to {most} printable characters, got "
            f"{text[:80]!r}",
            code=f"registry.{what}",
        )
