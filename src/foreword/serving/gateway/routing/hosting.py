"""What a follower asks of the host of prefixes. A host that does not answer stops nothing."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from foreword.artifact import Digest
from foreword.serving.contract import PrefixHost


class Hosting:
    """A host, or none. Belongs to the follower's thread."""

    def __init__(self, host: PrefixHost | None) -> None:
        self._host = host
        self._to_forget: set[Digest] = set()

    def resident(self) -> frozenset[Digest] | None:
        """What is resident; None if there is no host, so that nothing ever has to be."""
        if self._host is None:
            return None
        with suppress(Exception):
            return frozenset(each.digest for each in self._host.residents())
        return frozenset()

    def prefetch(self, digests: Iterable[Digest]) -> None:
        """A hint: if it fails, the first request asks again."""
        wanted = tuple(digests)
        if self._host is not None and wanted:
            with suppress(Exception):
                self._host.prefetch(wanted)

    def forget(self, digests: Iterable[Digest]) -> None:
        """Have it drop what was revoked or retired, as soon as it can be told."""
        if self._host is not None:
            self._to_forget.update(digests)

    def catch_up(self) -> None:
        """Tell it again what it could not be told."""
        if self._host is not None and self._to_forget:
            with suppress(Exception):
                self._host.forget(tuple(self._to_forget))
                self._to_forget.clear()
