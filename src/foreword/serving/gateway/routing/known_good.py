"""The last known good table as lines of canonical JSON, for a start while no database answers.

    {"head": {"hash", "seq"}, "read", "schema": "foreword.known-good/1"}
    {"prompt": {"kind", "template"}}        numbered from 0, each once
    {"version": {"base", "digest", "length", "name", "prompt": number or null, "status", "version"}}
    {"name": {"aliases": {...}, "name", "release": null or {"canary", "share", "stable"}}}
    {"recent": [digest, ...]}               what requests used last, the latest first
    {"sha256": "sha256:..."}                of all lines before

It is advice and no more: whoever can read the journal does not look at its table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, cast

from foreword.artifact import Digest, PromptFormat, canonical
from foreword.artifact.fields import Fields, refuse
from foreword.artifact.manifest import MAX_LENGTH, check_name, check_version
from foreword.errors import ArtifactError
from foreword.registry.entries import Head
from foreword.registry.facts import digest_or_none, text_or_null
from foreword.registry.releases import Release
from foreword.registry.state import Status
from foreword.serving.gateway.routing.table import Known, Named, ReleaseTable
from foreword.signing.times import moment, stamp

SCHEMA = "foreword.known-good/1"
MAX_RECENT = 1_000
_MAX_SEQ = 2**53
_STATUSES = ("live", "revoked", "retired")


@dataclass(frozen=True)
class KnownGood:
    """What a process knew when it last wrote it down."""

    table: ReleaseTable
    read: datetime
    """When the journal was last read."""
    recent: tuple[Digest, ...] = ()


def to_lines(known: KnownGood) -> Iterator[bytes]:
    """The lines of the file. They are made one by one, so that other threads run in between."""
    summed = hashlib.sha256()
    for value in _values(known):
        line = canonical.encode(value) + b"\n"
        summed.update(line)
        yield line
    yield canonical.encode({"sha256": f"sha256:{summed.hexdigest()}"}) + b"\n"


def from_bytes(data: bytes) -> KnownGood:
    """What `to_lines` wrote.

    Raises:
        ArtifactError: it is not whole (`known_good.damaged`), of another version (`known_good.schema`),
            or a line is not what it should be.
    """
    body, _, last = data.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    end = Fields(canonical.decode(last), "last line")
    if Digest.parse(end.text("sha256")) != Digest.of(body):
        refuse("last line", "known_good.damaged", "the lines before it have another digest")
    return _Reading(body.splitlines()).known_good()


def _values(known: KnownGood) -> Iterator[dict[str, Any]]:
    table = known.table
    head = {"seq": table.head.seq, "hash": str(table.head.hash)}
    yield {"schema": SCHEMA, "head": head, "read": stamp(known.read)}
    numbers: dict[PromptFormat, int] = {}
    for prompt in table.prompts.values():
        if prompt not in numbers:
            numbers[prompt] = len(numbers)
            yield {"prompt": {"kind": prompt.kind, "template": prompt.template}}
    for version in table.versions.values():
        put = table.prompts.get(version.digest)
        yield {"version": _version(version, None if put is None else numbers[put])}
    for named in table.names.values():
        yield {"name": _name(named)}
    yield {"recent": [str(digest) for digest in known.recent[:MAX_RECENT]]}


def _version(known: Known, prompt: int | None) -> dict[str, Any]:
    return {
        "name": known.name,
        "version": known.version,
        "digest": str(known.digest),
        "length": known.length,
        "base": str(known.base),
        "status": known.status,
        "prompt": prompt,
    }


def _name(named: Named) -> dict[str, Any]:
    release = named.release and {
        "stable": str(named.release.stable),
        "canary": text_or_null(named.release.canary),
        "share": named.release.share,
    }
    aliases = {word: str(digest) for word, digest in named.aliases.items()}
    return {"name": named.name, "release": release, "aliases": aliases}


@dataclass
class _Reading:
    """The lines while they are read."""

    lines: list[bytes]
    prompts: list[PromptFormat] = field(default_factory=list)
    of: dict[Digest, PromptFormat] = field(default_factory=dict)
    versions: dict[Digest, Known] = field(default_factory=dict)
    numbers: dict[str, dict[str, Digest]] = field(default_factory=dict)
    names: dict[str, Named] = field(default_factory=dict)
    recent: tuple[Digest, ...] = ()

    def known_good(self) -> KnownGood:
        head, read = _header(Fields(canonical.decode(self.lines[0]), "line 1"))
        for number, line in enumerate(self.lines[1:], 2):
            self._take(Fields(canonical.decode(line), f"line {number}"))
        table = ReleaseTable(
            head,
            MappingProxyType(self.names),
            MappingProxyType(self.versions),
            MappingProxyType({digest.hex: known.name for digest, known in self.versions.items()}),
            MappingProxyType(self.of),
            tuple(sorted(self.names)),
        )
        return KnownGood(table, read, self.recent)

    def _take(self, line: Fields) -> None:
        if line.has("prompt"):
            self.prompts.append(_prompt(line.object("prompt")))
        elif line.has("version"):
            self._take_version(line.object("version"))
        elif line.has("name"):
            self._take_name(line.object("name"))
        else:
            self.recent = tuple(map(Digest.parse, line.texts("recent", MAX_RECENT)))
        line.done()

    def _take_version(self, fields: Fields) -> None:
        known = Known(
            name=_checked(fields.text("name")),
            version=fields.text("version"),
            digest=Digest.parse(fields.text("digest")),
            length=fields.integer("length", 1, MAX_LENGTH),
            base=Digest.parse(fields.text("base")),
            status=cast(Status, fields.choice("status", _STATUSES)),
        )
        check_version(known.version)
        if not fields.is_null("prompt"):
            number = fields.integer("prompt", 0, len(self.prompts) - 1)
            self.of[known.digest] = self.prompts[number]
        fields.done()
        self.versions[known.digest] = known
        self.numbers.setdefault(known.name, {})[known.version] = known.digest

    def _take_name(self, fields: Fields) -> None:
        name = _checked(fields.text("name"))
        release = (
            None if fields.is_null("release") else self._release(name, fields.object("release"))
        )
        aliases = {
            word: Digest.parse(digest) for word, digest in fields.object("aliases").rest().items()
        }
        fields.done()
        self._require_there(aliases.values())
        self.names[name] = Named(name, release, aliases, self.numbers.get(name, {}))

    def _release(self, name: str, fields: Fields) -> Release:
        release = Release(
            name,
            Digest.parse(fields.text("stable")),
            digest_or_none(fields, "canary"),
            fields.number("share", 0, 1),
        )
        fields.done()
        self._require_there(filter(None, (release.stable, release.canary)))
        return release

    def _require_there(self, digests: Iterable[Digest]) -> None:
        for digest in digests:
            if digest not in self.versions:
                refuse(
                    "name", "known_good.damaged", f"it speaks of {digest}, which no line tells of"
                )


def _header(fields: Fields) -> tuple[Head, datetime]:
    schema = fields.text("schema")
    if schema != SCHEMA:
        refuse("schema", "known_good.schema", f"expected {SCHEMA}, got {schema[:80]!r}")
    head = fields.object("head")
    found = Head(head.integer("seq", 0, _MAX_SEQ), Digest.parse(head.text("hash")))
    head.done()
    text = fields.text("read")
    fields.done()
    try:
        return found, moment(text)
    except ValueError as e:
        raise ArtifactError(f"read: {e}", code="known_good.damaged") from e


def _prompt(fields: Fields) -> PromptFormat:
    kind = fields.choice("kind", ("template", "chat"))
    prompt = PromptFormat(cast(Any, kind), fields.text("template"))
    fields.done()
    return prompt


def _checked(name: str) -> str:
    check_name(name)
    return name
