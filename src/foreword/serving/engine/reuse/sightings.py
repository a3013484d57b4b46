"""`Sightings`: which blocks one tenant's recent prompts had, roughly, in a fixed 16 KiB.

Two Bloom filters take turns: what is noted goes into the newer one; when that has taken `_CAPACITY`
links the older one is emptied and becomes the newer. So the last 4,096 different links at least
are known. When both are full, a link that was never seen is taken for known in 1 of 100 cases; that may
cost a copy too many and is never a wrong answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_CAPACITY = 4096
_BITS = 1 << 16
_BIT_BYTES = 2


class Sightings:
    """What was seen of links, each at least 6 bytes of a cryptographic hash."""

    def __init__(self) -> None:
        self._newer = bytearray(_BITS // 8)
        self._older = bytearray(_BITS // 8)
        self._noted = 0

    def known(self, chain: Sequence[bytes]) -> int:
        """How many links from the start of a chain were seen before."""
        for count, link in enumerate(chain):
            if not (_has(self._newer, link) or _has(self._older, link)):
                return count
        return len(chain)

    def note(self, chain: Sequence[bytes]) -> None:
        """Remember a chain."""
        for link in chain:
            if not _has(self._newer, link):
                self._turn_if_full()
                _set(self._newer, link)
                self._noted += 1

    def _turn_if_full(self) -> None:
        if self._noted == _CAPACITY:
            self._newer, self._older = bytearray(_BITS // 8), self._newer
            self._noted = 0


def _bits(link: bytes) -> Iterator[int]:
    """Three bit numbers; a hash needs no further hashing."""
    for start in range(0, 3 * _BIT_BYTES, _BIT_BYTES):
        yield int.from_bytes(link[start : start + _BIT_BYTES], "little")


def _has(bits: bytearray, link: bytes) -> bool:
    return all(bits[bit >> 3] & (1 << (bit & 7)) for bit in _bits(link))


def _set(bits: bytearray, link: bytes) -> None:
    for bit in _bits(link):
        bits[bit >> 3] |= 1 << (bit & 7)
