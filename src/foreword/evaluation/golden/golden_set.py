"""A golden set: rows, what they are for, and a digest that a verdict is bound to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from foreword.artifact import Digest, canonical
from foreword.artifact.fields import Fields, refuse
from foreword.artifact.manifest import check_version
from foreword.evaluation.golden.row import GoldenRow

SCHEMA = 1
HEADER = "foreword_golden"
"""The key of the first line, whose value is the schema's number."""

_DOMAIN = b"foreword.golden/1"
_MOST_LANGUAGES = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62})?")
_SPECIALTY = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}")

ANY = "any"
"""The specialty of a set that is for every prefix: safety and off-task sets are."""


@dataclass(frozen=True)
class Header:
    """The first line of the file."""

    name: str
    version: str
    """Semantic version."""
    specialty: str
    """What the prefixes it judges are for, such as `support`; `any` for all."""
    languages: tuple[str, ...] = ("en",)
    """BCP 47 tags; rows that name none have the first."""
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            HEADER: SCHEMA, "name": self.name, "version": self.version,
            "specialty": self.specialty, "languages": list(self.languages),
            "description": self.description,
        }  # fmt: skip


@dataclass(frozen=True)
class GoldenSet:
    """What `read_golden` gives; the ids of its rows are unique."""

    header: Header
    rows: tuple[GoldenRow, ...]

    @cached_property
    def digest(self) -> Digest:
        """sha256 over the canonical header and rows in the order of their ids, each with its length."""
        state = hashlib.sha256(_DOMAIN)
        rows = (row.to_json() for row in sorted(self.rows, key=lambda row: row.id))
        for value in (self.header.to_json(), *rows):
            data = canonical.encode(value)
            state.update(len(data).to_bytes(8, "little") + data)
        return Digest(state.hexdigest())

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return f"{self.header.name}@{self.header.version}"

    def tagged(self, tag: str) -> tuple[GoldenRow, ...]:
        return tuple(row for row in self.rows if tag in row.tags)

    def functions(self) -> frozenset[str]:
        """Names of all functions its checks ask for."""
        return frozenset().union(*(row.functions() for row in self.rows))

    def only(self, rows: Iterable[GoldenRow], suffix: str) -> GoldenSet:
        """A part of it as a set of its own, named `name.suffix`."""
        name = f"{self.header.name}.{suffix}"
        header = Header(
            name, self.header.version, self.header.specialty, self.header.languages,
            self.header.description,
        )  # fmt: skip
        check_header_name(name)
        return GoldenSet(header, tuple(rows))


def parse_header(value: Any) -> Header:
    """Read the first line.

    Raises:
        ArtifactError: a field is missing, unknown or wrong; the message names it.
    """
    fields = Fields(value, "header")
    schema = fields.integer(HEADER, 0, 1 << 30)
    if schema != SCHEMA:
        refuse(
            f"header.{HEADER}", "golden.schema",
            f"expected schema {SCHEMA}, got {schema}; it was made for another version of Foreword",
        )  # fmt: skip
    header = Header(
        name=fields.text("name"),
        version=fields.text("version"),
        specialty=fields.text("specialty"),
        languages=fields.texts("languages", _MOST_LANGUAGES)
        if fields.has("languages")
        else ("en",),
        description=fields.text("description") if fields.has("description") else "",
    )
    fields.done()
    check_header_name(header.name)
    check_version(header.version)
    check_specialty(header.specialty)
    if not header.languages or not all(map(_LANGUAGE.fullmatch, header.languages)):
        refuse("header.languages", "golden.language", "expected language tags such as en or pt-BR")
    return header


def check_header_name(name: str) -> None:
    """A set's name: like the name of a prefix."""
    if not _NAME.fullmatch(name):
        refuse(
            "header.name", "golden.name",
            "expected `set` or `tenant/set`, each part at most 63 lower-case letters, digits, '.', "
            f"'_' or '-', got {name[:80]!r}",
        )  # fmt: skip


def check_specialty(specialty: str) -> None:
    """One lower-case word."""
    if not _SPECIALTY.fullmatch(specialty):
        refuse(
            "header.specialty", "golden.specialty",
            f"expected one word such as support, or {ANY}, got {specialty[:80]!r}",
        )  # fmt: skip
