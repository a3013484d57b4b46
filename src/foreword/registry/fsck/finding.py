"""What is wrong, where, and how to mend it. docs/operations.md explains every code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["broken", "doubtful", "leftover"]
"""
broken      something that was promised does not hold: mend it now
doubtful    nothing fails yet, but somebody should look
leftover    harmless remains of what was cut short; gc takes them
"""


@dataclass(frozen=True)
class Finding:
    """One inconsistency."""

    code: str
    severity: Severity
    where: str
    what: str
    mend: str

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "where": self.where,
            "what": self.what,
            "mend": self.mend,
        }


def broken(code: str, where: str, what: str, mend: str) -> Finding:
    return Finding(f"fsck.{code}", "broken", where, what, mend)


def doubtful(code: str, where: str, what: str, mend: str) -> Finding:
    return Finding(f"fsck.{code}", "doubtful", where, what, mend)


def leftover(code: str, where: str, what: str, mend: str) -> Finding:
    return Finding(f"fsck.{code}", "leftover", where, what, mend)
