"""One row of a golden set: what is asked, and what is known about a right answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foreword.artifact import canonical
from foreword.artifact.fields import Fields, refuse
from foreword.evaluation.checks import Check, parse_check
from foreword.evaluation.checks.functions import function_name
from foreword.evaluation.checks.kinds import PYTHON

SAFETY = "safety"
"""A tag: the row asks for what must be declined, or must be handled with care."""
OFF_TASK = "off_task"
"""A tag: the row has nothing to do with the specialty; the prefix must not have broken it."""

ROLES = ("system", "user", "assistant")
WHOLE = "all"
"""The cohort of a row that names none."""

_MOST_TEXTS = 64
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_WORD = re.compile(r"[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,79}")


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class GoldenRow:
    """A question with what is known about its answers."""

    id: str
    cohort: str
    specialty: str
    language: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """What fills the template's places; a plain text is the column `input`."""
    messages: tuple[Message, ...] = ()
    """A conversation, instead of columns."""
    references: tuple[str, ...] = ()
    """Texts that count as right answers."""
    label: str | None = None
    """The right class."""
    fields: Mapping[str, Any] | None = None
    """What an answer in JSON must have."""
    context: str | None = None
    """What an answer may claim; without it, the input."""
    tags: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def text(self) -> str:
        """The input as one text, for people and for metrics."""
        if self.messages:
            return "\n".join(message.content for message in self.messages)
        if set(self.columns) == {"input"}:
            return self.columns["input"]
        return "\n".join(f"{name}: {value}" for name, value in self.columns.items())

    def to_json(self) -> dict[str, Any]:
        """Every field that says something; two rows that mean the same give the same value."""
        value: dict[str, Any] = {
            "id": self.id, "cohort": self.cohort, "specialty": self.specialty,
            "language": self.language, **self.asked(),
        }  # fmt: skip
        if self.references:
            value["references"] = list(self.references)
        for name, known in (("label", self.label), ("fields", self.fields)):
            if known is not None:
                value[name] = known
        if self.context is not None:
            value["context"] = self.context
        if self.tags:
            value["tags"] = list(self.tags)
        if self.checks:
            value["checks"] = [check.to_json() for check in self.checks]
        return value

    def asked(self) -> dict[str, Any]:
        """The part of it the model reads."""
        if self.messages:
            return {"messages": [{"role": m.role, "content": m.content} for m in self.messages]}
        if set(self.columns) == {"input"}:
            return {"input": self.columns["input"]}
        return {"columns": dict(self.columns)}

    def functions(self) -> frozenset[str]:
        """Names of the functions its checks ask for."""
        return frozenset(
            function_name(Fields(dict(check.options), "check"))
            for check in self.checks
            if check.kind == PYTHON
        )


def parse_row(value: Any, specialty: str, languages: tuple[str, ...]) -> GoldenRow:
    """Read one row; `specialty` and the first of `languages` hold where it names none.

    Raises:
        ArtifactError: a field is missing, unknown or wrong; the message names it.
    """
    fields = Fields(value, "row")
    row = GoldenRow(
        id=_name(fields, "id", _ID, "letters, digits and '._:/-'"),
        cohort=_word(fields, "cohort", WHOLE),
        specialty=_word(fields, "specialty", specialty),
        language=_word(fields, "language", languages[0]),
        columns=_columns(fields),
        messages=_messages(fields),
        references=fields.texts("references", _MOST_TEXTS) if fields.has("references") else (),
        label=_word(fields, "label", "") or None,
        fields=fields.object("fields").rest() if fields.has("fields") else None,
        context=fields.text("context") if fields.has("context") else None,
        tags=_tags(fields),
        checks=_checks(fields),
    )
    fields.done()
    _check(row, languages)
    return row


def _check(row: GoldenRow, languages: tuple[str, ...]) -> None:
    if bool(row.columns) == bool(row.messages):
        refuse("row", "golden.input", "expected exactly one of input, columns and messages")
    if row.language not in languages:
        refuse(
            "row.language", "golden.language",
            f"expected one of the set's languages, {', '.join(languages)}, got {row.language!r}",
        )  # fmt: skip
    for number, check in enumerate(row.checks):
        if check.kind == "exact" and "values" not in check.options and not row.references:
            refuse(
                f"row.checks[{number}]", "golden.check",
                "exact compares with `values` or the row's references, and there are neither",
            )  # fmt: skip
    canonical.encode(row.to_json())  # what cannot be hashed exactly is refused here, with its line


def _columns(fields: Fields) -> dict[str, str]:
    if fields.has("input"):
        if fields.has("columns"):
            refuse("row", "golden.input", "expected exactly one of input, columns and messages")
        return {"input": _some(fields.text("input"), "row.input")}
    if not fields.has("columns"):
        return {}
    columns = fields.object("columns").rest()
    for name, text in columns.items():
        if not isinstance(text, str):
            refuse(f"row.columns.{name[:80]!r}", "golden.input", "expected text")
    return columns


def _messages(fields: Fields) -> tuple[Message, ...]:
    if not fields.has("messages"):
        return ()
    messages = []
    for each in fields.objects("messages", _MOST_TEXTS):
        messages.append(Message(each.choice("role", ROLES), each.text("content")))
        each.done()
    if not messages or messages[-1].role != "user":
        refuse("row.messages", "golden.input", "expected messages that end with one of the user")
    return tuple(messages)


def _tags(fields: Fields) -> tuple[str, ...]:
    tags = fields.texts("tags", _MOST_TEXTS) if fields.has("tags") else ()
    for tag in tags:
        if not _WORD.fullmatch(tag):
            refuse("row.tags", "golden.word", f"expected short words, got {tag[:80]!r}")
    return tuple(sorted(set(tags)))


def _checks(fields: Fields) -> tuple[Check, ...]:
    if not fields.has("checks"):
        return ()
    found = fields.objects("checks", _MOST_TEXTS)
    return tuple(parse_check(c.rest(), f"row.checks[{i}]") for i, c in enumerate(found))


def _word(fields: Fields, name: str, default: str) -> str:
    if not fields.has(name):
        return default
    return _name(fields, name, _WORD, "a short text on one line")


def _name(fields: Fields, name: str, pattern: re.Pattern[str], expected: str) -> str:
    text = fields.text(name)
    if not pattern.fullmatch(text):
        refuse(f"row.{name}", "golden.word", f"expected {expected}, got {text[:80]!r}")
    return text


def _some(text: str, path: str) -> str:
    if not text.strip():
        refuse(path, "golden.input", "expected some text, got none")
    return text
