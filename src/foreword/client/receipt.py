"""What a server says about who made an answer, and whether that is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.errors import ServingError

BASE = "base"
_DIGEST = "sha256:"
_SHOWN = 12


@dataclass(frozen=True)
class Receipt:
    """The field `foreword` of an answer; docs/server.md tells what each part means."""

    prefix: str | None
    """None: the bare model answered."""
    version: str | None
    digest: str | None
    arm: str | None
    wanted: str | None = None
    """What would have answered if something else had not stood in for it."""
    reason: str | None = None
    """Why it stood in."""

    @property
    def line(self) -> str:
        """For people: name, version, the beginning of the digest, arm, and what it stood in for."""
        name = BASE if self.prefix is None else f"{self.prefix}@{self.version}"
        digest = self.digest[: len(_DIGEST) + _SHOWN] if self.digest else None
        instead = f"instead of {self.wanted} ({self.reason})" if self.wanted else None
        return "  ".join(part for part in (name, digest, self.arm, instead) if part)

    def differs(self, model: str) -> str:
        """What is wrong with it as an answer to a request for `model`; empty if nothing is.

        Something that stood in is not wrong: the receipt says so.
        """
        name, _, version = model.partition("@")
        if model == BASE:
            return "" if self.prefix is None and self.digest is None else f"{self.line} answered"
        if self.digest is None and self.wanted is None:
            return "the bare model answered"
        if self.wanted is not None:
            return ""
        if model.startswith(_DIGEST):
            return "" if self.digest == model else f"{self.digest} answered"
        if self.prefix != name or (version[:1].isdigit() and self.version != version):
            return f"{self.line} answered"
        return ""


def read_receipt(value: Any) -> Receipt:
    """From the field `foreword` of a document.

    Raises:
        ServingError: it is none (`client.receipt`).
    """
    try:
        fallback = value["fallback"] or {}
        said = [value[name] for name in ("prefix", "version", "digest", "arm")]
        said += [fallback.get("wanted"), fallback.get("reason")]
    except (KeyError, TypeError, AttributeError) as e:
        raise _no_receipt() from e
    if not all(part is None or isinstance(part, str) for part in said):
        raise _no_receipt()
    return Receipt(*said)


def require_headers(receipt: Receipt, headers: Mapping[str, str]) -> None:
    """Headers and body of one answer tell the same.

    Raises:
        ServingError: they do not (`client.receipts_differ`).
    """
    named = headers.get("x-foreword-prefix"), headers.get("x-foreword-digest")
    if named != (receipt.prefix or BASE, receipt.digest):
        raise receipts_differ()


def receipts_differ() -> ServingError:
    return ServingError(
        "one answer came with two receipts that differ; it was thrown away, please report it",
        code="client.receipts_differ",
    )


def _no_receipt() -> ServingError:
    return ServingError(
        "an answer came without saying which prefix made it; expected the field `foreword` of a "
        "Foreword server",
        code="client.receipt",
    )
