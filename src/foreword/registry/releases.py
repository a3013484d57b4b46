"""What a name gives now: a stable version, and perhaps a canary for a share of the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foreword.artifact import Digest
from foreword.registry.tagged import tagged

Arm = Literal["stable", "canary"]


@dataclass(frozen=True)
class Pick:
    """What one key gets."""

    digest: Digest
    arm: Arm


@dataclass(frozen=True)
class Release:
    """A stable version and, while one is tried, a canary."""

    name: str
    stable: Digest
    canary: Digest | None = None
    share: float = 0.0
    """Part of the keys that get the canary, from 0 to 1."""

    def pick(self, key: str) -> Pick:
        """The version for a key: a user, a session, whatever should not see versions change.

        Sticky: it depends on name, canary and key alone. As the share grows, a key that has the canary
        keeps it. Another canary draws anew, so that the same keys are not always the first.
        """
        if self.canary is not None and _place(self.name, self.canary, key) < self.share * 2**64:
            return Pick(self.canary, "canary")
        return Pick(self.stable, "stable")


def _place(name: str, canary: Digest, key: str) -> int:
    """Where a key stands, evenly from 0 to 2^64 - 1."""
    # surrogatepass: a key comes from a request, and picking must not fail on any text
    drawn = tagged(
        "foreword.pick/1",
        name.encode(),
        bytes.fromhex(canary.hex),
        key.encode(errors="surrogatepass"),
    )
    return int.from_bytes(drawn[:8], "big")
