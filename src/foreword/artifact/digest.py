"""`Digest`: the only name a prefix version has once it leaves the front door."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from foreword.errors import ArtifactError

_HEX = re.compile(r"[0-9a-f]{64}")
_ALGORITHM = "sha256:"


@dataclass(frozen=True, order=True, slots=True)
class Digest:
    """A sha256 digest: 64 lower-case hexadecimal digits, written `sha256:<hex>`."""

    hex: str

    def __post_init__(self) -> None:
        if not isinstance(self.hex, str) or not _HEX.fullmatch(self.hex):
            raise ArtifactError(
                f"a digest is 64 lower-case hexadecimal digits, got {str(self.hex)[:80]!r}",
                code="digest.malformed",
            )

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """Digest of bytes that are already in memory (prefixes are 0.02-40 MB)."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<hex>`; anything else is an `ArtifactError` with code `digest.malformed`."""
        if not isinstance(text, str) or not text.startswith(_ALGORITHM):
            raise ArtifactError(
                f"a digest is written sha256:<64 hex digits>, got {str(text)[:80]!r}",
                code="digest.malformed",
            )
        return cls(text.removeprefix(_ALGORITHM))

    @property
    def short(self) -> str:
        """The first twelve digits, for people; never used as a key."""
        return self.hex[:12]

    def __str__(self) -> str:
        return _ALGORITHM + self.hex
